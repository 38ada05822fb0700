# SPDX-License-Identifier: Apache-2.0
"""acknowledgement: both. What a client was told is on both clusters; trouble of the target costs a bounded time."""
import json

import lab
import pytest

STATEMENTS = """
import json, sys, time
import rawcql
c, straight = rawcql.Client(sys.argv[1]), rawcql.Client(sys.argv[2])
ks, rounds = sys.argv[3], int(sys.argv[4])
insert = c.prepare(f"INSERT INTO {ks}.t (k, v) VALUES (?, ?)")
missing = []
def there(table, k):
    return straight.paged(f"SELECT k FROM {ks}.{table} WHERE k = {k}", 10)[0] == 1
for i in range(rounds):
    k = i * 10
    c.query(f"INSERT INTO {ks}.t (k, v) VALUES ({k}, 'x')")
    there("t", k) or missing.append(k)
    c.execute(insert, (k + 1).to_bytes(4, "big"), b"prepared")
    there("t", k + 1) or missing.append(k + 1)
    c.query(f"INSERT INTO {ks}.t (k, v) VALUES ({k + 2}, 'lwt') IF NOT EXISTS")
    there("t", k + 2) or missing.append(k + 2)
    c.query(f"UPDATE {ks}.t SET l = l + [1] WHERE k = {k + 3}")
    there("t", k + 3) or missing.append(k + 3)
    c.query(f"BEGIN BATCH INSERT INTO {ks}.t (k, v) VALUES ({k + 4}, 'b') INSERT INTO {ks}.t (k, v) VALUES ({k + 5}, 'b') APPLY BATCH")
    there("t", k + 5) or missing.append(k + 5)
    c.query(f"UPDATE {ks}.counts SET c = c + 1 WHERE k = {k}")
    there("counts", k) or missing.append(f"counter {k}")
c.query(f"CREATE TABLE IF NOT EXISTS {ks}.fresh (k int PRIMARY KEY, v text)")
c.query(f"INSERT INTO {ks}.fresh (k, v) VALUES (1, 'x')")
there("fresh", 1) or missing.append("fresh")
print(json.dumps(missing))
"""

PAUSED = """
import json, sys, time
import rawcql
c = rawcql.Client(sys.argv[1])
ks = sys.argv[2]
out = {"writes": [], "read": 0.0}
for i in range(5):
    begun = time.monotonic()
    write = c.send(rawcql.QUERY, rawcql.long_string(f"INSERT INTO {ks}.t (k, v) VALUES ({100000 + i}, 'slow')") + b"\\0\\1\\0")
    read = c.send(rawcql.QUERY, rawcql.long_string(f"SELECT v FROM {ks}.t WHERE k = 0") + b"\\0\\1\\0")
    for _ in range(2):
        _, _, stream, op, body = c.receive()
        assert op == rawcql.RESULT, (op, body)
        took = time.monotonic() - begun
        if stream == read:
            out["read"] = max(out["read"], took)
        else:
            out["writes"].append(took)
print(json.dumps(out))
"""


def rows(cluster, keyspace):
    return sorted(map(tuple, cluster.run(f"SELECT k, v, l, WRITETIME(v) FROM {keyspace}.t")), key=str)


@pytest.mark.quick
def test_what_was_answered_is_on_both(make_agent, clusters, pod, keyspace):
    origin, target = clusters
    for c in clusters:
        c.run(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v text, l list<int>)", f"CREATE TABLE {keyspace}.counts (k int PRIMARY KEY, c counter)")
    agent = make_agent(acknowledgement="both", limits={"acknowledgeMillis": 20000})
    agent.phase("mirror")
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_connections") > 0, 20, "a connection to the target")
    missing = json.loads(pod.python(STATEMENTS, origin.address, target.address, keyspace, "40", timeout=120).stdout)
    assert not missing, missing
    metrics = agent.metrics()
    assert metrics['cqlferry_acknowledged_total{when="both"}'] == 40 * 6 + 2, metrics['cqlferry_acknowledged_total{when="both"}']
    assert metrics['cqlferry_acknowledged_total{when="time_out"}'] == 0
    agent.settled(10)
    assert rows(origin, keyspace) == rows(target, keyspace)
    assert agent.metric("cqlferry_requests_inflight") == 0

    # Held answers do not stand in the way of a switch, and it goes on in the other direction.
    agent.phase("cutover")
    pod.python(STATEMENTS, origin.address, target.address, keyspace, "3")
    agent.settled(10)
    assert rows(origin, keyspace) == rows(target, keyspace)


@pytest.mark.quick
def test_a_target_in_trouble_costs_a_bounded_time(make_agent, clusters, pod, keyspace):
    origin, target = clusters
    for c in clusters:
        c.run(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v text, l list<int>)")
    agent = make_agent(acknowledgement="both", limits={"acknowledgeMillis": 700})
    agent.phase("mirror")
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_connections") > 0, 20, "a connection to the target")
    target.pause()
    try:
        out = json.loads(pod.python(PAUSED, origin.address, keyspace, timeout=60).stdout)
    finally:
        target.resume()
    assert all(0.65 < w < 2.5 for w in out["writes"]), out
    assert out["read"] < 0.6, f"a read waits for another request's answer: {out}"
    assert agent.metrics()['cqlferry_acknowledged_total{when="time_out"}'] == 5
    agent.settled(40)
    assert rows(origin, keyspace) == rows(target, keyspace) and len(rows(target, keyspace)) == 5
