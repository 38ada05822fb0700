# SPDX-License-Identifier: Apache-2.0
"""Values that the cluster makes are the same on both clusters; what decides by Paxos answers as if nobody stood between."""
import json
import os
import sys

import functions_client
import lab
import pytest
import shared
from test_cutover import Talk

pytestmark = pytest.mark.quick
CLIENT = os.path.join(lab.HERE, "functions_client.py")


@pytest.fixture(scope="module")
def names(clusters):
    with shared.keyspaces(clusters, "functions", *[s.format(ks="functions") for s in functions_client.SCHEMA]) as names:
        yield names


@pytest.fixture
def keyspace(clusters, names):
    shared.on_both(clusters, *[f"TRUNCATE {names[0]}.{t}" for t in ("fn", "keyed", "series", "items", "events")])
    return names[0]


def assert_equal(agent, origin, target, keyspace, rounds):
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
    for table, expected in (("fn", 19 * rounds), ("keyed", 7 * rounds), ("series", rounds)):
        a, b = (sorted(tuple(map(repr, r)) for r in c.run(f"SELECT * FROM {keyspace}.{table}")) for c in (origin, target))
        assert a == b, f"{table}: {len(a)} and {len(b)} rows; {[x for x in zip(a, b) if x[0] != x[1]][:2]}"
        assert len(a) == expected, f"{table}: {len(a)} rows"
    times = "SELECT id, WRITETIME(u), WRITETIME(tu), WRITETIME(ts), WRITETIME(n), WRITETIME(ut) FROM {}.fn"
    a, b = (sorted(map(tuple, c.run(times.format(keyspace))), key=str) for c in (origin, target))
    assert a == b
    assert agent.metric("cqlferry_unmirrored_total") == 0
    # In a round: 11 prepared, 7 simple ones, 2 batches.
    assert agent.metric("cqlferry_functions_replaced_total") == 20 * rounds


@pytest.mark.parametrize("version, compression", [(3, "none"), (4, "lz4"), (5, "none"), (5, "lz4")])
def test_values_of_functions_are_the_same_on_both(agent, pod, origin, target, keyspace, version, compression):
    agent.phase("mirror")
    r = pod.run([sys.executable, CLIENT, origin.address, version, compression, keyspace], env=dict(os.environ, PYTHONWARNINGS="ignore"))
    # The client was told what it would be told with nobody between.
    cluster, session = functions_client.connect(origin.address, version, compression, keyspace)
    direct = functions_client.describe(functions_client.prepare(session))
    cluster.shutdown()
    assert json.loads(r.stdout) == direct
    assert_equal(agent, origin, target, keyspace, 3)


def test_prepared_functions_outlive_every_phase(agent, pod, origin, target, keyspace):
    """Statements that were prepared past the agent, before mirroring began, go on through mirror, cutover and rollback."""
    talk = Talk(pod, None, command=pod.command([sys.executable, CLIENT, origin.address, "4", "none", keyspace, "talk"]))
    try:
        assert talk.line() == "ready"
        agent.phase("mirror")
        lab.wait_until(lambda: "connections that did not go through the agent were closed" in agent.log(), 20, "the end of older connections")
        assert talk.ask() == "written"
        assert talk.ask() == "written"
        agent.phase("cutover")
        assert talk.ask() == "written"
        agent.phase("rollback")
        assert talk.ask() == "written"
    finally:
        talk.end()
    assert_equal(agent, origin, target, keyspace, 4)


LWT = """
import sys
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster
from cassandra.query import BatchStatement
cluster = Cluster([sys.argv[1]], protocol_version=int(sys.argv[2]), auth_provider=PlainTextAuthProvider("cassandra", "cassandra"))
session = cluster.connect(sys.argv[3])
insert = session.prepare("INSERT INTO items (id, v, n) VALUES (?, 'x', ?) IF NOT EXISTS")
update = session.prepare("UPDATE items SET n = ? WHERE id = ? IF n = ?")
delete = session.prepare("DELETE FROM items WHERE id = ? IF EXISTS")
def said(*statement):
    r = session.execute(*statement)
    print(r.was_applied, r.column_names, [tuple(x) for x in r.current_rows])
for s in ((insert, ("a", 1)), (insert, ("a", 1)), (update, (2, "a", 1)), (update, (2, "a", 1)), (delete, ("a",)), (delete, ("a",)),
          ("INSERT INTO items (id, n) VALUES ('b', 1) IF NOT EXISTS",), ("UPDATE items SET n = 3 WHERE id = 'b' IF n = 7",),
          ("BEGIN BATCH INSERT INTO events (w, i) VALUES (1, 1) IF NOT EXISTS; INSERT INTO events (w, i) VALUES (1, 2) APPLY BATCH",),
          ("BEGIN BATCH INSERT INTO events (w, i) VALUES (1, 1) IF NOT EXISTS; INSERT INTO events (w, i) VALUES (1, 2) APPLY BATCH",)):
    said(*s)
for _ in range(2):
    b = BatchStatement()
    b.add(insert, ("c", 1))
    said(b)
cluster.shutdown()
"""


@pytest.mark.parametrize("version", [3, 4, 5])
def test_conditional_writes_answer_as_directly(agent, pod, origin, target, keyspace, version):
    agent.phase("mirror")
    through = pod.python(LWT, origin.address, str(version), keyspace).stdout.split("\n")
    origin.run(*[f"TRUNCATE {keyspace}.{t}" for t in ("items", "events")])
    direct = lab.subprocess.run([sys.executable, "-c", LWT, origin.address, str(version), keyspace], stdout=lab.subprocess.PIPE, text=True,
                                timeout=60, check=True, env=dict(os.environ, PYTHONWARNINGS="ignore")).stdout.split("\n")
    assert through == direct
    applied = [line.split()[0] for line in through if line]
    assert applied == ["True", "False"] * 3 + ["True", "False"] + ["True", "False"] * 2
    # What did not apply needs no mirroring.
    assert agent.metrics()["cqlferry_mirror_refused_total"] == 6
    assert agent.metrics()['cqlferry_unmirrored_total{cause="lwt"}'] == 0
