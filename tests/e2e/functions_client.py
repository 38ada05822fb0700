# SPDX-License-Identifier: Apache-2.0
"""An application that lets the cluster make values: now(), uuid() and their like, through the unmodified Python driver.

functions_client.py HOST VERSION COMPRESSION KEYSPACE [TALK]: writes in every way that there is, and prints what it was told of its prepared
statements as JSON. With TALK it prepares, prints "ready", and then writes once for each line that it reads.
"""
import json
import sys
import time

from cassandra import ConsistencyLevel, OperationTimedOut
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.query import BatchStatement, BatchType, SimpleStatement

SCHEMA = ("CREATE TYPE {ks}.moment (a timeuuid, b text, c date)",
          "CREATE TABLE {ks}.fn (id text PRIMARY KEY, tu timeuuid, u uuid, ts timestamp, d date, tm time, bi bigint, n int, "
          "su set<uuid>, mt map<timeuuid, text>, ut frozen<moment>, tp frozen<tuple<timeuuid, int>>)",
          "CREATE TABLE {ks}.keyed (u uuid PRIMARY KEY, who text)",
          "CREATE TABLE {ks}.series (k text, ts timestamp, n int, PRIMARY KEY (k, ts))")

PREPARED = {
    "front": ("INSERT INTO fn (tu, id, n) VALUES (now(), ?, ?)", lambda i: (f"front{i}", i)),
    "back": ("INSERT INTO fn (id, n, u) VALUES (?, ?, uuid())", lambda i: (f"back{i}", i)),
    "between": ("INSERT INTO fn (id, ts, n, d, tm) VALUES (?, currentTimestamp(), ?, currentDate(), currentTime()) USING TTL ?",
                lambda i: (f"between{i}", i, 86400)),
    "nested": ("UPDATE fn SET ts = toTimestamp(now()), d = toDate(currentTimeUUID()), bi = toUnixTimestamp(now()), n = ? WHERE id = ?",
               lambda i: (i, f"nested{i}")),
    "named": ("UPDATE fn SET tu = minTimeuuid(toTimestamp(now())), n = :n WHERE id = :id", lambda i: {"n": i, "id": f"named{i}"}),
    "literals": ("INSERT INTO fn (id, ut, tp, n) VALUES (?, {a:now(), b:'x', c:currentDate()}, (now(), ?), ?)",
                 lambda i: (f"literals{i}", i, i)),
    "collections": ("UPDATE fn SET su = {uuid(), uuid()}, mt = {now():'a'}, n = ? WHERE id = ?", lambda i: (i, f"collections{i}")),
    "element": ("UPDATE fn SET mt[now()] = ? WHERE id = ?", lambda i: (f"v{i}", f"element{i}")),
    "key": ("INSERT INTO keyed (u, who) VALUES (uuid(), ?)", lambda i: (f"key{i}",)),
    "nothing": ("INSERT INTO keyed (u, who) VALUES (now(), 'nothing')", lambda i: ()),
    "batch": ("BEGIN BATCH INSERT INTO fn (id, u, n) VALUES (?, uuid(), ?); INSERT INTO keyed (u, who) VALUES (now(), ?) APPLY BATCH",
              lambda i: (f"batch{i}", i, f"batch{i}")),
}

SIMPLE = (
    "INSERT INTO fn (id, tu, u, ts, d, tm) VALUES ('s%d', now(), uuid(), currentTimestamp(), currentDate(), currentTime())",
    "UPDATE fn SET ts = toTimestamp(now()), tu = maxTimeuuid(currentTimestamp()), d = currentDate() - 1d WHERE id = 't%d'",
    "UPDATE fn SET su = su + {uuid()}, mt = {now():'x', now():'y'}, ut = {a:system.now(), c:toDate(now())} WHERE id = 'u%d'",
    "INSERT INTO keyed (u, who) VALUES (uuid(), 'simple%d')",
    "BEGIN BATCH INSERT INTO fn (id, tu) VALUES ('w%d', now()) INSERT INTO keyed (u, who) VALUES (\"now\"(), $$now()$$) APPLY BATCH",
    "INSERT INTO series (k, ts, n) VALUES ('s%d', currentTimestamp() + 1d, 1)",
    "DELETE FROM series WHERE k = 's%d' AND ts < currentTimestamp()",
)


def connect(host, version, compression, keyspace):
    cluster = Cluster([host], protocol_version=version, auth_provider=PlainTextAuthProvider("cassandra", "cassandra"),
                      compression=False if compression == "none" else compression)
    return cluster, cluster.connect(keyspace)


def prepare(session):
    return {name: session.prepare(text) for name, (text, _) in PREPARED.items()}


def describe(prepared):
    """What a driver was told of each statement."""
    return {name: {"id": p.query_id.hex(), "binds": [[c.name, str(c.type)] for c in p.column_metadata or ()],
                   "routing": p.routing_key_indexes} for name, p in prepared.items()}


def write(session, prepared, i):
    for name, (_, values) in PREPARED.items():
        session.execute(prepared[name], values(i))
    for text in SIMPLE:
        session.execute(text % i)
    for kind in (BatchType.LOGGED, BatchType.UNLOGGED):
        b = BatchStatement(kind, consistency_level=ConsistencyLevel.ONE)
        b.add(prepared["front"], (f"bf{kind.value}{i}", i))
        b.add(SimpleStatement("INSERT INTO fn (id, u, n) VALUES (%s, uuid(), %s)"), (f"bs{kind.value}{i}", i))
        b.add(prepared["collections"], (i, f"bc{kind.value}{i}"))
        b.add(prepared["key"], (f"bk{kind.value}{i}",))
        session.execute(b)


def reconnect(session):
    """Connections older than the mirror are closed; a driver with nothing to do notices late."""
    end = time.time() + 20
    while True:
        try:
            return session.execute("SELECT key FROM system.local")
        except (NoHostAvailable, OperationTimedOut):
            if time.time() > end:
                raise
            time.sleep(0.2)


def main():
    cluster, session = connect(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
    prepared = prepare(session)
    if sys.argv[5:]:
        print("ready", flush=True)
        for i, _ in enumerate(sys.stdin):
            reconnect(session)
            write(session, prepared, i)
            print("written", flush=True)
    else:
        for i in range(3):
            write(session, prepared, i)
        print(json.dumps(describe(prepared)), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
