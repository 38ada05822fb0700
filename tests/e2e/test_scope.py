# SPDX-License-Identifier: Apache-2.0
"""Tables that are left out of the mirror, and keyspaces and tables that have other names on the target."""
import json
import subprocess
import sys

import lab
import pytest

COLUMNS = "(k int PRIMARY KEY, name text, v text, price frozen<money>, l list<int>, m map<text, int>)"
HERE, THERE = "scope_shop", "scope_store"

DRIVER = """
import json, sys, time
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster
from cassandra.query import BatchStatement, SimpleStatement
address, ks, version = sys.argv[1], sys.argv[2], int(sys.argv[3])
cluster = Cluster([address], protocol_version=version, auth_provider=PlainTextAuthProvider("cassandra", "cassandra"))
bare = cluster.connect()
s = cluster.connect(ks)
k = version * 100
def run(text, *values):
    s.execute(text, values or None)
run(f"INSERT INTO {ks}.plain (k, v) VALUES (%s, 'scope_shop.plain') /* {ks}.audit */", k)
run("INSERT INTO plain (k, v, m) VALUES (%s, 'unqualified', {'a': 1}) USING TTL 5000", k + 1)
run('UPDATE "Orders" SET v = %s WHERE k = %s', "quoted", k + 2)
run(f"INSERT INTO {ks}.plain (k, price) VALUES (%s, (frozen<{ks}.money>){{cents: 5}})", k + 3)
run("INSERT INTO name (k, name, v) VALUES (%s, 'column', 'gone')", k)
run("DELETE v, name FROM name WHERE k = %s", k)
run(f"INSERT INTO {ks}.name (k, name) VALUES (%s, 'stays')", k + 1)
qualified = bare.prepare(f"INSERT INTO {ks}.plain (k, v) VALUES (?, ?)")
unqualified = s.prepare("INSERT INTO plain (k, v) VALUES (?, ?)")
orders = s.prepare('INSERT INTO "Orders" (k, v) VALUES (?, ?)')
audit = s.prepare("INSERT INTO audit (k, v) VALUES (?, ?)")
bare.execute(qualified, (k + 4, "prepared"))
for i in range(5, 15):
    s.execute(unqualified, (k + i, f"prepared {i}"))
s.execute(audit, (k, "left out"))
run("INSERT INTO audit (k, v) VALUES (%s, 'left out')", k + 1)
run("UPDATE plain SET l = l + [1] WHERE k = %s", k + 4)
run("INSERT INTO plain (k, v) VALUES (%s, 'conditional') IF NOT EXISTS", k + 20)
run("UPDATE counts SET c = c + 2 WHERE k = %s", k)
batch = BatchStatement()
batch.add(unqualified, (k + 30, "batch"))
batch.add(audit, (k + 30, "left out"))
batch.add(SimpleStatement("INSERT INTO audit (k, v) VALUES (%s, 'left out')"), (k + 31,))
batch.add(SimpleStatement(f"UPDATE {ks}.\\"Orders\\" SET v = 'batch' WHERE k = %s"), (k + 31,))
batch.add(orders, (k + 32, "batch"))
s.execute(batch)
batch = BatchStatement()
batch.add(audit, (k + 40, "all of it is left out"))
batch.add(audit, (k + 41, "all of it is left out"))
s.execute(batch)
run(f"BEGIN BATCH INSERT INTO plain (k, v) VALUES (%s, 'text batch'); INSERT INTO audit (k, v) VALUES (%s, 'left out'); "
    f"UPDATE {ks}.plain SET v = 'text batch' WHERE k = %s APPLY BATCH", k + 50, k + 50, k + 51)
mixed = s.prepare("BEGIN BATCH INSERT INTO plain (k, v) VALUES (?, ?); INSERT INTO audit (k, v) VALUES (?, ?) APPLY BATCH")
s.execute(mixed, (k + 52, "prepared text batch", k + 52, "left out"))
whole = s.prepare("BEGIN BATCH INSERT INTO plain (k, v) VALUES (?, ?); INSERT INTO \\"Orders\\" (k, v) VALUES (?, ?) APPLY BATCH")
s.execute(whole, (k + 53, "prepared text batch", k + 53, "prepared text batch"))
cluster.shutdown()
"""


def columns(cluster, table):
    """Values with WRITETIME and what lives for a while."""
    return sorted(map(tuple, cluster.run(f"SELECT k, name, v, price, l, m, WRITETIME(v), WRITETIME(name), WRITETIME(price) FROM {table}")), key=str)


def schema(cluster, keyspace, tables):
    cluster.run(f"DROP KEYSPACE IF EXISTS {keyspace}",
                f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
                f"CREATE TYPE {keyspace}.money (cents int)", f"CREATE TABLE {keyspace}.counts (k int PRIMARY KEY, c counter)",
                *[f"CREATE TABLE {keyspace}.{t} {COLUMNS}" for t in tables])


@pytest.fixture
def shops(clusters):
    """A keyspace on each cluster, under names of its own; the target lacks the table that is left out."""
    origin, target = clusters
    schema(origin, HERE, ["plain", '"Orders"', "name", "audit"])
    schema(target, THERE, ["plain", "sales", "name"])
    yield origin, target
    for cluster, keyspace in ((origin, HERE), (target, THERE), (target, HERE)):
        cluster.run(f"DROP KEYSPACE IF EXISTS {keyspace}")


def same(origin, target):
    for here, there in (("plain", "plain"), ('"Orders"', "sales"), ("name", "name")):
        a, b = columns(origin, f"{HERE}.{here}"), columns(target, f"{THERE}.{there}")
        assert a == b and a, f"{here}: {sorted(set(map(str, a)) ^ set(map(str, b)))}"
    counts = [sorted(map(tuple, c.run(f"SELECT k, c FROM {ks}.counts"))) for c, ks in ((origin, HERE), (target, THERE))]
    assert counts[0] == counts[1] and counts[0]


@pytest.mark.quick
def test_other_names_on_the_target(make_agent, shops, pod):
    origin, target = shops
    agent = make_agent(limits={"refusedAttempts": 5}, mirror={"exclude": [f"{HERE}.audit"], "rename": [f"{HERE}={THERE}", f"{HERE}.Orders=sales"]})
    moved = agent.phase("mirror")
    assert f"{HERE}.audit" in moved.stdout and f"{HERE} is {THERE}" in moved.stdout, moved.stdout
    for version in (5, 4):
        pod.python(DRIVER, origin.address, HERE, str(version))
    agent.settled(30)
    same(origin, target)
    ttl = [c.run(f"SELECT TTL(v) FROM {ks}.plain WHERE k = 501")[0][0] for c, ks in ((origin, HERE), (target, THERE))]
    assert abs(ttl[0] - ttl[1]) <= 3, ttl
    assert agent.metric("cqlferry_mirror_left_out_total") == 2 * (2 + 2 + 2 + 2), agent.metric("cqlferry_mirror_left_out_total")
    assert agent.status()["mirror"]["leftOut"] == 16
    assert agent.metric("cqlferry_unmirrored_total") == 0 and not agent.gaps(), agent.gaps()

    # Schema changes, a table that comes later, and what the target does not have yet.
    old = pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
c.query("USE {HERE}")
c.query("ALTER TABLE plain ADD extra int")
c.query("CREATE TABLE {HERE}.later (k int PRIMARY KEY, p frozen<{HERE}.money>, v text)")
c.query("CREATE TYPE color (rgb int)")
c.query("INSERT INTO later (k, v) VALUES (1, 'first')")
c.query("UPDATE plain SET extra = 7 WHERE k = 500")
c.query("TRUNCATE audit")
c.query("TRUNCATE name")
print(c.prepare("INSERT INTO later (k, v) VALUES (?, ?)").hex())
""", origin.address).stdout.strip()
    agent.settled(30)
    assert target.run(f"SELECT v FROM {THERE}.later")[0][0] == "first"
    assert target.run(f"SELECT extra FROM {THERE}.plain WHERE k = 500")[0][0] == 7
    assert not target.run(f"SELECT * FROM {THERE}.name") and not origin.run(f"SELECT * FROM {HERE}.audit")
    assert len(target.run(f"SELECT type_name FROM system_schema.types WHERE keyspace_name = '{THERE}'")) == 2

    # Dead letters go to the target's table; ids that were prepared before a restart mean the same after it.
    target.run(f"DROP TABLE {THERE}.later")
    pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
c.query("INSERT INTO {HERE}.later (k, v) VALUES (2, 'dead')")
c.execute(bytes.fromhex(sys.argv[2]), bytes.fromhex("00000003"), b"dead")
""", origin.address, old)
    lab.wait_until(lambda: agent.status()["mirror"]["deadKept"] == 2, 60, lambda: f"{agent.status()['mirror']}")
    assert agent.stop() == 0
    agent.start()
    target.run(f"CREATE TABLE {THERE}.later (k int PRIMARY KEY, p frozen<money>, v text)")
    assert json.loads(agent.cli("dead", "replay", "--table", f"{HERE}.later", "--json").stdout)["sentAgain"] == 2
    pod.python("import rawcql, sys\nrawcql.Client(sys.argv[1]).execute(bytes.fromhex(sys.argv[2]), bytes.fromhex('00000004'), b'known')",
               origin.address, old)
    agent.settled(30)
    rows = [sorted(map(tuple, c.run(f"SELECT k, v, WRITETIME(v) FROM {ks}.later"))) for c, ks in ((origin, HERE), (target, THERE))]
    assert [r[:2] for r in rows[1]] == [(2, "dead"), (3, "dead"), (4, "known")]
    assert rows[0][1:] == rows[1]

    # Under other names no client can be led to the target.
    for to in ("drain", "cutover"):
        r = agent.phase(to, "--force", check=False)
        assert r.returncode != 0 and "mirror.rename" in r.stdout + r.stderr, r.stdout + r.stderr
    assert agent.metrics()["cqlferry_phase"] == 1


@pytest.mark.quick
def test_an_id_of_the_target_is_no_id_of_the_origin(make_agent, shops, pod):
    """The origin has a keyspace with the name that another one gets on the target: same text, same id, another table."""
    origin, target = shops
    schema(target, HERE, ["plain"])
    schema(origin, THERE, ["plain"])
    try:
        agent = make_agent(mirror={"include": [f"{HERE}.plain", THERE], "rename": [f"{HERE}={THERE}", f"{THERE}={HERE}"]})
        agent.phase("mirror", "--force")
        pod.python(f"""
import rawcql, sys
ids = {{}}
for ks in ("{HERE}", "{THERE}"):
    c = rawcql.Client(sys.argv[1])
    c.query("USE " + ks)
    ids[ks] = c.prepare("INSERT INTO plain (k, v) VALUES (?, ?)")
    for turn in range(3):
        c.execute(ids[ks], bytes([0, 0, 0, turn]), ks.encode())
c = rawcql.Client(sys.argv[1])
for turn in range(3, 200):
    for ks, i in ids.items():
        c.execute(i, bytes([0, 0, 0, turn]), ks.encode())
""", origin.address)
        agent.settled(30)
        for cluster, keyspace, value in ((origin, HERE, HERE), (origin, THERE, THERE), (target, THERE, HERE), (target, HERE, THERE)):
            got = {r[0] for r in cluster.run(f"SELECT v FROM {keyspace}.plain")}
            assert got == {value}, f"{cluster.name} {keyspace}: {got}"
            assert cluster.run(f"SELECT COUNT(*) FROM {keyspace}.plain")[0][0] == 200
    finally:
        origin.run(f"DROP KEYSPACE {THERE}")


@pytest.mark.quick
def test_tables_left_out_refuse_the_cutover(make_agent, clusters, pod, keyspace):
    origin, target = clusters
    for c in clusters:
        c.run(f"CREATE TABLE {keyspace}.audit (k int PRIMARY KEY, v text)")
    agent = make_agent(mirror={"include": [keyspace], "exclude": [f"{keyspace}.audit"]})
    agent.phase("mirror")
    pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
c.query("INSERT INTO {keyspace}.audit (k, v) VALUES (1, 'x')")
c.query("INSERT INTO {keyspace}_b.items (id, n) VALUES ('left out', 1)")
c.query("INSERT INTO {keyspace}.items (id, n) VALUES ('there', 1)")
""", origin.address)
    agent.settled(20)
    assert [r[0] for r in target.run(f"SELECT id FROM {keyspace}.items")] == ["there"]
    assert not target.run(f"SELECT k FROM {keyspace}.audit") and not target.run(f"SELECT id FROM {keyspace}_b.items")
    assert agent.metric("cqlferry_mirror_left_out_total") == 2
    r = agent.phase("cutover", check=False)
    assert r.returncode != 0 and "mirror.exclude" in r.stdout + r.stderr, r.stdout + r.stderr
    agent.phase("cutover", "--force")
    r = agent.phase("rollback", check=False)
    assert r.returncode != 0 and "mirror.exclude" in r.stdout + r.stderr, r.stdout + r.stderr
    agent.phase("finish")


REQUEST_KEYSPACE = """
import sys, time
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster
from cassandra.query import SimpleStatement
cluster = Cluster([sys.argv[1]], port=19043, protocol_version=5, auth_provider=PlainTextAuthProvider("cassandra", "cassandra"))
s = cluster.connect(sys.argv[2])
print("connected", flush=True)
end, n = time.time() + float(sys.argv[3]), 0
try:
    while time.time() < end:
        for f in [s.execute_async(SimpleStatement(f"INSERT INTO items (id, n) VALUES ('{n + i}', {n + i})", keyspace=sys.argv[2] + "_b")) for i in range(20)]:
            f.result()
        n += 20
except Exception as e:
    print(f"ended: {e}", file=sys.stderr)
print(n, flush=True)
"""


def test_the_keyspace_of_a_request_comes_before_the_session_s(make_agent, clusters, pod, keyspace):
    """A session of v5 that is older than the mirror, and a target without v5: its connection is bound to the request's keyspace."""
    origin, target = clusters
    agent = make_agent(ebpf=False, settings={"target": {"protocolVersion": 4}})  # in observe a session through the agent
    writer = pod.start([sys.executable, "-c", REQUEST_KEYSPACE, lab.NODE_IP, keyspace, "6"], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline().strip() == "connected"
        agent.phase("mirror")
        assert int(writer.stdout.readline()) > 0
    finally:
        writer.kill()
        writer.wait()
    agent.settled(30)
    assert agent.metric("cqlferry_mirror_records_total") > 0
    assert not target.run(f"SELECT id FROM {keyspace}.items"), "writes in the session's keyspace instead of the request's"
    there = {r[0] for r in target.run(f"SELECT id FROM {keyspace}_b.items")}
    assert there and there <= {r[0] for r in origin.run(f"SELECT id FROM {keyspace}_b.items")}
