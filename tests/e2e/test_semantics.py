# SPDX-License-Identifier: Apache-2.0
"""What the protocol demands where an intermediary could get it wrong, checked with bare frames."""
import pytest

pytestmark = pytest.mark.quick


@pytest.fixture
def mirroring(agent):
    agent.phase("mirror")
    return agent


def test_unknown_prepared_id_is_answered_unprepared(mirroring, pod, origin, keyspace):
    """An id that the agent never saw cannot be mirrored: the client is asked to prepare again, as any node may ask."""
    # Prepared past the agent (from the node), so the origin knows the id and the agent does not.
    import rawcql as raw

    direct = raw.Client(origin.address)
    known = direct.prepare(f"INSERT INTO {keyspace}.items (id, n) VALUES (?, ?)")
    direct.close()
    r = pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
def attempt(i):
    try:
        c.execute(i, b"k", b"\\0\\0\\0\\7")
        return "done"
    except rawcql.CqlError as e:
        n = int.from_bytes(e.body[:2], "big")
        return hex(e.code) + (" same id" if e.body[2:2 + n] == i else " other id")
known = bytes.fromhex(sys.argv[2])
print(attempt(known))
print(attempt(b"0123456789abcdef"))
again = c.prepare("INSERT INTO {keyspace}.items (id, n) VALUES (?, ?)")
print("equal" if again == known else "different")
print(attempt(again))
""", origin.address, known.hex())
    assert r.stdout.split("\n")[:4] == ["0x2500 same id", "0x2500 same id", "equal", "done"], r.stdout
    assert mirroring.metric("cqlferry_prepared_misses_total") >= 2


def test_a_refused_write_never_reaches_the_target(mirroring, pod, origin, target, keyspace, equal):
    target.run(f"DROP KEYSPACE IF EXISTS {keyspace}_only", f"CREATE KEYSPACE {keyspace}_only WITH replication = "
               "{'class': 'SimpleStrategy', 'replication_factor': 1}",
               f"CREATE TABLE {keyspace}_only.t (id text PRIMARY KEY)")
    try:
        r = pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
for q in ("INSERT INTO {keyspace}_only.t (id) VALUES ('x')", "INSERT INTO {keyspace}.items (id, n) VALUES ('x', 'no number')",
          "INSERT INTO {keyspace}.items (id, n) VALUES", "INSERT INTO {keyspace}.items (id, n) VALUES ('good', 1)"):
    try:
        c.query(q)
        print("done")
    except rawcql.CqlError as e:
        print(hex(e.code))
""", origin.address)
        assert r.stdout.split() == ["0x2200", "0x2200", "0x2000", "done"], r.stdout
        assert equal(keyspace).rows == 1
        assert target.run(f"SELECT * FROM {keyspace}_only.t") == []
    finally:
        target.run(f"DROP KEYSPACE {keyspace}_only")


def test_one_answer_each_with_many_in_flight(mirroring, pod, origin, keyspace, equal):
    """900 requests at once on one connection, half of them in one segment of bytes: each stream is answered exactly once."""
    r = pod.python(f"""
import collections, rawcql, sys
c = rawcql.Client(sys.argv[1], timeout=60)
frames = b""
for s in range(900):
    q = f"INSERT INTO {keyspace}.items (id, n) VALUES ('k{{s}}', {{s}})" if s % 3 else "SELECT key FROM system.local"
    frames += c.frame(rawcql.QUERY, rawcql.long_string(q) + b"\\0\\1\\0", s)
c.socket.sendall(frames)
seen = collections.Counter()
for _ in range(900):
    _, _, stream, op, body = c.receive()
    assert op == rawcql.RESULT, (op, body)
    seen[stream] += 1
print(len(seen), max(seen.values()))
""", origin.address, timeout=120)
    assert r.stdout.split() == ["900", "1"]
    assert equal(keyspace).rows == 600


def test_bytes_that_come_one_by_one(mirroring, pod, origin, keyspace, equal):
    r = pod.python(f"""
import rawcql, socket, sys, time
c = rawcql.Client(sys.argv[1])
c.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
data = c.frame(rawcql.QUERY, rawcql.long_string("INSERT INTO {keyspace}.items (id, n) VALUES ('slow', 1)") + b"\\0\\1\\0", 5)
for b in data:
    c.socket.sendall(bytes([b]))
    time.sleep(0.001)
print(c.receive()[2:4])
""", origin.address)
    assert r.stdout.strip() == "(5, 8)"
    assert equal(keyspace).rows == 1


def test_a_default_timestamp_is_the_clients_where_it_gave_one(mirroring, pod, origin, target, keyspace):
    pod.python(f"""
import rawcql, struct, sys
c = rawcql.Client(sys.argv[1])
c.query("INSERT INTO {keyspace}.items (id, n) VALUES ('flag', 1)", 0x20, struct.pack(">q", 1234567))
c.query("INSERT INTO {keyspace}.items (id, n) VALUES ('clause', 1) USING TIMESTAMP 7654321")
""", origin.address)
    for c in (origin, target):
        rows = dict((r[0], r[1]) for r in c.run(f"SELECT id, WRITETIME(n) FROM {keyspace}.items"))
        assert rows == {"flag": 1234567, "clause": 7654321}, c.name


def test_schema_changes_are_mirrored(mirroring, pod, origin, target, keyspace):
    pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1], timeout=30)
c.query("CREATE TABLE {keyspace}.added (id int PRIMARY KEY, v text)")
c.query("INSERT INTO {keyspace}.added (id, v) VALUES (1, 'a')")
c.query("ALTER TABLE {keyspace}.added ADD w int")
c.query("INSERT INTO {keyspace}.added (id, v, w) VALUES (2, 'b', 3)")
""", origin.address)
    import lab

    lab.wait_until(lambda: mirroring.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
    want = [(1, "a", None), (2, "b", 3)]
    for c in (origin, target):
        assert sorted(tuple(r) for r in c.run(f"SELECT id, v, w FROM {keyspace}.added")) == want, c.name
