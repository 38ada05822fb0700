# SPDX-License-Identifier: Apache-2.0
"""Tables on hold, over a restart; dead letters that are sent again; and what a person sees of both, beside the running agent."""
import json
import subprocess

import lab
import pytest

CLIENT = """
import json, sys, rawcql
c = rawcql.Client(sys.argv[1])
for line in json.loads(sys.argv[2]):
    if isinstance(line, list):
        c.execute(c.prepare(line[0]), *[bytes.fromhex(v) for v in line[1:]])
    else:
        c.query(line)
"""


def through(pod, origin, *lines):
    pod.python(CLIENT, origin.address, json.dumps(lines))


def command(*args, status=0):
    r = subprocess.run([lab.BINARY, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=60)
    assert r.returncode == status, f"{args}: {r.returncode}\n{r.stdout}{r.stderr}"
    return r.stdout


def rows(cluster, table):
    return {r[0]: (r[1], r[2]) for r in cluster.run(f"SELECT k, v, WRITETIME(v) FROM {table}")}


def values(cluster, table):
    return {k: v for k, (v, _) in rows(cluster, table).items()}


def backlog(agent, table):
    return sum(t["records"] for t in agent.status()["mirror"]["tables"] if t["table"] == table)


@pytest.mark.quick
def test_what_must_wait_waits_and_the_rest_flows(make_agent, clusters, pod, keyspace):
    origin, target = clusters
    held, free, cut, counts = f"{keyspace}.\"Held\"", f"{keyspace}.free", f"{keyspace}.cut", f"{keyspace}.counts"
    for c in clusters:
        c.run(*[f"CREATE TABLE {t} (k int PRIMARY KEY, v text)" for t in (held, free, cut)],
              f"CREATE TABLE {counts} (k int PRIMARY KEY, c counter)")
    agent = make_agent(journal={"strictHolds": True}, limits={"stopMillis": 500})
    agent.phase("mirror")
    through(pod, origin, f"INSERT INTO {held} (k, v) VALUES (2, 'goes')", f"INSERT INTO {cut} (k, v) VALUES (1, 'goes')")
    lab.wait_until(lambda: values(target, held) == {2: "goes"} and values(target, cut) == {1: "goes"}, 20, "rows on the target")

    agent.cli("hold", held)
    agent.cli("hold", counts)
    through(pod, origin, f"INSERT INTO {held} (k, v) VALUES (1, 'first')", f"UPDATE {held} SET v = 'secondsecret' WHERE k = 1",
            f"DELETE FROM {held} WHERE k = 2",
            f"BEGIN BATCH INSERT INTO {held} (k, v) VALUES (3, 'both') INSERT INTO {free} (k, v) VALUES (3, 'both') APPLY BATCH",
            [f"UPDATE {held} SET v = ? WHERE k = ?", b"bound".hex(), "00000004"], f"UPDATE {counts} SET c = c + 3 WHERE k = 1",
            f"INSERT INTO {held} (k, v) VALUES (6, 'conditional') IF NOT EXISTS", f"INSERT INTO {free} (k, v) VALUES (1, 'free')")
    lab.wait_until(lambda: values(target, free) == {1: "free"} and 1 in values(target, held), 20, "the other table flows")
    waiting = {1: "first", 2: "goes"}
    assert values(target, held) == waiting
    lab.wait_until(lambda: backlog(agent, "Held") == 5 and backlog(agent, "free") == 1 and backlog(agent, "counts") == 1, 10, lambda: f"{agent.status()['mirror']}")
    assert agent.metrics()[f'cqlferry_mirror_table_backlog_records{{keyspace="{keyspace}",table="Held"}}'] == 5
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_oldest_seconds") >= 1, 10, "the age of the oldest")
    on_hold = agent.status()["tablesOnHold"]
    assert sorted((h["table"], h["waiting"]) for h in on_hold) == [("Held", 5), ("counts", 1)]

    # From outside, while it is being written.
    assert "sound" in command("journal", "verify", "--state", agent.state)
    listed = json.loads(command("journal", "ls", "--state", agent.state, "--json"))
    assert any(f["running"] for f in listed["files"])
    assert {t["table"]: t["waiting"] for t in listed["tables"]}[f"{keyspace}.Held"] == 5
    shown = command("journal", "show", "--state", agent.state, "--table", held, "--entry", "queued")
    assert shown.count("\n") == 5 and "secret" not in shown and b"bound".hex() not in shown, shown
    shown = command("journal", "show", "--state", agent.state, "--table", held, "--entry", "queued", "--values")
    assert "secondsecret" in shown and "0x" + b"bound".hex() in shown, shown

    assert agent.stop() == 0
    assert "dead" in command("journal", "ls", "--state", agent.state)
    agent.start()
    assert [h["table"] for h in json.loads(agent.cli("hold", "--json").stdout)["tablesOnHold"]] == ["Held", "counts"]
    through(pod, origin, f"INSERT INTO {free} (k, v) VALUES (5, 'after')")
    lab.wait_until(lambda: values(target, free) == {1: "free", 5: "after"}, 20, "the other table flows after the restart")
    lab.wait_until(lambda: backlog(agent, "Held") == 5, 10, lambda: f"counted as it is read: {agent.status()['mirror']}")
    assert values(target, held) == waiting
    assert agent.cli("release", f"{keyspace}.held").returncode == 0  # another table: names are case-correct
    assert values(target, held) == waiting
    assert not target.run(f"SELECT c FROM {counts}")
    agent.cli("release", held)
    agent.cli("release", counts)
    lab.wait_until(lambda: rows(target, held) == rows(origin, held), 20, "released")
    assert values(target, held) == {1: "secondsecret", 3: "both", 4: "bound", 6: "conditional"}
    lab.wait_until(lambda: [r[0] for r in target.run(f"SELECT c FROM {counts}")] == [3], 20, "the counter, once")
    assert rows(target, free) == rows(origin, free)

    # A TRUNCATE waits as well: behind a load it would have to be repeated.
    agent.cli("hold", f"{keyspace}.*")
    through(pod, origin, f"TRUNCATE {cut}")
    lab.wait_until(lambda: backlog(agent, "cut") == 1, 10, "TRUNCATE waits")
    assert values(target, cut) == {1: "goes"} and not values(origin, cut)
    agent.cli("release", f"{keyspace}.*")
    lab.wait_until(lambda: not values(target, cut), 20, "TRUNCATE on the target")
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_oldest_seconds") == 0, 10, "nothing waits")


@pytest.mark.quick
def test_dead_letters_are_sent_again(make_agent, clusters, pod, keyspace):
    origin, target = clusters
    late = f"{keyspace}.late"
    # v4 counts a TTL from when the statement arrives.
    agent = make_agent(limits={"refusedAttempts": 5}, settings={"target": {"protocolVersion": 4}})
    agent.phase("mirror")
    origin.run(f"CREATE TABLE {late} (k int PRIMARY KEY, v text)")  # past the agent: the target lacks it
    through(pod, origin, f"INSERT INTO {late} (k, v) VALUES (1, 'textsecret')",
            [f"INSERT INTO {late} (k, v) VALUES (?, ?)", "00000002", b"bound".hex()])
    lab.wait_until(lambda: agent.status()["mirror"]["deadKept"] == 2, 40, lambda: f"{agent.status()['mirror']}")
    through(pod, origin, f"INSERT INTO {late} (k, v) VALUES (3, 'v') USING TTL 3000")
    lab.wait_until(lambda: agent.status()["mirror"]["deadKept"] == 3, 20, lambda: f"{agent.status()['mirror']}")
    listed = json.loads(command("dead", "ls", "--state", agent.state, "--json"))
    assert listed["letters"] == 3 and {d["tables"] for d in listed["dead"]} == {late}, listed
    shown = command("dead", "show", "--state", agent.state)
    assert shown.count("INSERT INTO") == 3 and "secret" not in shown, shown
    assert "after 4 retries" in shown and "after 0 retries" in shown, shown  # the table has none left for the third
    assert agent.stop() == 0
    agent.start()
    assert agent.status()["mirror"]["deadKept"] == 3
    assert json.loads(agent.cli("dead", "replay", "--table", f"{keyspace}.other", "--json").stdout)["sentAgain"] == 0
    target.run(f"CREATE TABLE {late} (k int PRIMARY KEY, v text)")
    assert json.loads(agent.cli("dead", "replay", "--table", late, "--json").stdout)["sentAgain"] == 3
    lab.wait_until(lambda: len(rows(target, late)) == 3, 20, "dead letters on the target")
    assert rows(target, late) == rows(origin, late), "values and WRITETIME"
    left = [c.run(f"SELECT TTL(v) FROM {late} WHERE k = 3")[0][0] for c in clusters]
    assert abs(left[0] - left[1]) <= 2, left
    assert agent.status()["mirror"]["deadKept"] == 0
    assert json.loads(command("dead", "ls", "--state", agent.state, "--json"))["letters"] == 0
    assert "dead_letter" in agent.cli("gaps").stdout, "the ledger keeps its line"
