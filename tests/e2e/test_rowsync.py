# SPDX-License-Identifier: Apache-2.0
"""Row sync on two real clusters: rows are made to differ on purpose, the sync runs, both sides are compared.

Values, WRITETIME and expiry of every cell: also of each element of a collection and each field of a user type, where
the cluster tells them (Cassandra 5).
"""
import json
import os
import queue
import resource
import struct
import subprocess
import threading
import time

import pytest
from cassandra.protocol import _ProtocolHandler

import compare
import lab

quick = pytest.mark.quick
TOOL = os.path.join(lab.BUILD, "tests", "bench", "rowsync")
TIME = 1_700_000_000_000  # ms: too long for an int, which JSON does not take for a timestamp
OLD = int((time.time() - 3600) * 1e6)  # µs: settled long ago


class Tool:
    """tests/bench/rowsync.c, running."""

    def __init__(self, origin, target, threads=2):
        self.jobs = 0
        self.process = subprocess.Popen(
            [TOOL, f"{origin.address}:9042", f"{target.address}:9042", lab.USER, lab.PASSWORD, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        # Read all the time: a tool that cannot write its answers takes no more jobs.
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def line(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")

    def submit(self, *children, keyspace="", **options):
        """Each child: a text, or (text, values[, names]); values are bytes, None (null) or False (not set)."""
        out = []
        for c in children:
            c = (c,) if isinstance(c, str) else c
            child = {"text": c[0], "keyspace": keyspace,
                     "values": [v.hex() if isinstance(v, bytes) else v for v in (c[1] if len(c) > 1 else [])]}
            if len(c) > 2:
                child["names"] = c[2]
            out.append(child)
        self.line(**{"children": out, "from": "origin", **options})
        self.jobs += 1

    def wait(self):
        """{job number: errno} of all jobs that ended since the last wait."""
        self.line(wait=True)
        results = {}
        while (line := self.lines.get()) is not None:
            if line == "waited\n":
                return results
            number, result = line.split()
            results[int(number)] = int(result)
        raise lab.LabError(f"the tool ended with {self.process.wait()}")

    def sync(self, *children, **options):
        """One job; its errno."""
        self.submit(*children, **options)
        return list(self.wait().values())[0]

    def end(self):
        """The counters."""
        self.process.stdin.close()
        assert self.process.wait(120) == 0
        last = None
        while (line := self.lines.get()) is not None:
            last = line
        return json.loads(last)

    def kill(self):
        self.process.kill()
        self.process.wait()


def integer(v):
    return struct.pack(">i", v)


TYPE = "CREATE TYPE {k}.address (street text, number int, \"Zip Code\" text)"
SCALARS = {
    "a": ("ascii", "'x'", "'y'"), "bi": ("bigint", "5", "6"), "bl": ("blob", "0xcafe", "0x"),
    "bo": ("boolean", "true", "false"), "da": ("date", "'2026-01-02'", "'2026-01-03'"), "de": ("decimal", "1.50", "1.5"),
    "do": ("double", "1.5", "NaN"), "du": ("duration", "1h2m", "3d"), "fl": ("float", "0.5", "-0.0"),
    "i": ("inet", "'10.0.0.1'", "'::1'"), "n": ("int", "1", "-1"), "si": ("smallint", "3", "4"),
    "t": ("text", "'é'", "''"), "ti": ("time", "'10:00:00'", "'11:00:00'"), "ts": ("timestamp", "'2026-01-01'", "0"),
    "tu": ("timeuuid", "50554d6e-29bb-11e5-b345-feff819cdc9f", "50554d6f-29bb-11e5-b345-feff819cdc9f"),
    "ty": ("tinyint", "1", "2"), "u": ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                                       "6ba7b811-9dad-11d1-80b4-00c04fd430c8"),
    "vi": ("varint", "123456789012345678901234567890", "-1"), "\"Quoted \"\"V\"": ("text", "'q'", "'r'"),
    "tup": ("frozen<tuple<int, text>>", "(1, 'a')", "(2, null)"), "fl2": ("frozen<list<int>>", "[1, 2]", "[]"),
    "fs": ("frozen<set<text>>", "{'a'}", "{'b'}"), "fm": ("frozen<map<int, frozen<list<text>>>>", "{1: ['a']}", "{2: []}"),
    "fu": ("frozen<address>", "{street: 's', number: 1}", "{number: 2}"),
}


if min(os.environ.get(f"LAB_{side}_VERSION") or "5" for side in ("ORIGIN", "TARGET")) >= "5":
    SCALARS["vec"] = ("vector<float, 3>", "[1, 2, 3]", "[0.5, 0, -1]")


def tables(k):
    scalars = ", ".join(f"{name} {kind}" for name, (kind, _, _) in SCALARS.items())
    return [
        f"CREATE TABLE {k}.scalars (\"K\" int PRIMARY KEY, {scalars})",
        f"CREATE TABLE {k}.wide (k int, c int, d text, s int STATIC, ss set<int> STATIC, v int, w text, "
        "PRIMARY KEY (k, c, d)) WITH CLUSTERING ORDER BY (c DESC, d ASC)",
        f"CREATE TABLE {k}.many (k int PRIMARY KEY, v int, se set<text>, m map<text, int>, l list<int>, u address, "
        "ml map<int, frozen<list<int>>>)",
        f"CREATE TABLE {k}.expiring (k int PRIMARY KEY, v int, w int, m map<int, int>) WITH default_time_to_live = 500",
        f"CREATE TABLE {k}.bare (k int, c int, PRIMARY KEY (k, c))",
        f"CREATE TABLE {k}.counters (k int PRIMARY KEY, n counter)",
        f"CREATE TABLE {k}.keys (a uuid, b text, c frozen<tuple<int, text>>, d timestamp, v int, PRIMARY KEY ((a, b), c, d))",
    ]


def elements(column, kind, value, written, ttl, now):
    """The cells of one column as {name: (value, writetime, expiry)}."""
    def stamp(i):
        if written is None:
            return None, None
        return written[i], now + ttl[i] if ttl and ttl[i] is not None else None

    if kind.startswith("map<"):
        pairs = [(f"{column}[{x!r}]", y) for x, y in value.items()]
    elif kind.startswith("set<"):
        pairs = [(f"{column}[{x!r}]", True) for x in value]
    elif kind.startswith("list<"):
        pairs = [(f"{column}[{i}]", x) for i, x in enumerate(value)]
    else:
        pairs = [(f"{column}.{i}", x) for i, x in enumerate(value)]
    return {name: (x, *stamp(i)) for i, (name, x) in enumerate(pairs) if x is not None}


def read(side, keyspace, tables_read, stamps):
    """compare.Side.read() with the stamps of elements."""
    rows = {}
    types = {r[0] for r in side.session.execute(
        "SELECT type_name FROM system_schema.types WHERE keyspace_name = %s", (keyspace,))}
    for table, columns in side.tables(keyspace).items():
        if table not in tables_read:
            continue
        key = [c for k, _, c, _ in sorted(columns, key=lambda x: (x[0] != "partition_key", x[1]))
               if k in ("partition_key", "clustering")]
        partition = sum(1 for k, *_ in columns if k == "partition_key")
        quoted = {c: '"' + c.replace('"', '""') + '"' for _, _, c, _ in columns}
        select, cells = [quoted[c] for c in key], []
        for kind, _, column, ctype in columns:
            if kind in ("partition_key", "clustering"):
                continue
            q, many = quoted[column], ctype.startswith(("set<", "map<", "list<")) or ctype in types
            select += [q, f"WRITETIME({q})", f"TTL({q})"] if stamps or not many else [q]
            cells.append((column, ctype, many, kind == "static"))
        for values in side.session.execute(f'SELECT {", ".join(select)} FROM "{keyspace}"."{table}"'):
            now, k, i = time.time(), tuple(values[: len(key)]), len(key)
            static, row = {}, {}
            for column, ctype, many, is_static in cells:
                value, written, ttl = values[i], None, None
                i += 1
                if not many or stamps:
                    written, ttl = values[i: i + 2]
                    i += 2
                if value is None:
                    continue
                to = static if is_static else row
                if many:
                    to.update(elements(column, ctype, value, written, ttl, now))
                else:
                    to[column] = (str(value), written, now + ttl if ttl is not None else None)
            if static:
                rows[(f"{keyspace}.{table}", k[:partition])] = static
            if None not in k:
                rows[(f"{keyspace}.{table}", k)] = row
    return rows


class Pair:
    """Both clusters with a keyspace, and the tool."""

    def __init__(self, clusters, keyspace):
        self.keyspace = keyspace
        self.sides = [compare.Side(c.name, c.address) for c in clusters]
        for s in self.sides:  # the one that can read a list with a null in it, as TTL() of a collection is
            s.session.client_protocol_handler = _ProtocolHandler
        self.old = any((c.version or "").startswith("4") for c in clusters)
        self.tool = Tool(*clusters)

    def run(self, side, *statements):
        for s in statements:
            self.sides[side].session.execute(s.replace("{k}", self.keyspace), timeout=30)

    def origin(self, *statements):
        self.run(0, *statements)

    def target(self, *statements):
        self.run(1, *statements)

    def both(self, *statements):
        self.run(0, *statements)
        self.run(1, *statements)

    def sync(self, *children, **options):
        return self.tool.sync(*children, keyspace=self.keyspace, **options)

    def differences(self, *names, slack=2.5):
        rows = [read(s, self.keyspace, names, not self.old) for s in self.sides]
        result = compare.Result()
        compare.compare_sides(*self.sides, *rows, result, slack)
        return result

    def equal(self, *names, slack=2.5):
        result = self.differences(*names, slack=slack)
        assert result.ok(), result.text() + "\n" + "\n".join(result.notes)
        return result


@pytest.fixture(scope="module")
def pair(clusters):
    name = "trowsync"
    for c in clusters:
        c.run(f"DROP KEYSPACE IF EXISTS {name}",
              f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
              TYPE.format(k=name), *tables(name))
    p = Pair(clusters, name)
    yield p
    assert p.tool.end()["done"] > 0
    for s in p.sides:
        s.close()
    for c in clusters:
        c.run(f"DROP KEYSPACE {name}")


@quick
def test_scalars_of_every_type(pair):
    names = ", ".join(SCALARS)
    one, two = (", ".join(x[i] for x in SCALARS.values()) for i in (1, 2))
    # 1: only on the origin; 2: other values, older; 3: equal but the timestamp; 4: a cell less; 5: only on the target
    pair.origin(*[f"INSERT INTO {{k}}.scalars (\"K\", {names}) VALUES ({i}, {two}) USING TIMESTAMP {OLD + i}" for i in (1, 2, 3)],
                f"INSERT INTO {{k}}.scalars (\"K\", n, t) VALUES (4, 1, 'x') USING TIMESTAMP {OLD}",
                f"DELETE n FROM {{k}}.scalars USING TIMESTAMP {OLD + 9} WHERE \"K\" = 4")
    pair.target(f"INSERT INTO {{k}}.scalars (\"K\", {names}) VALUES (2, {one}) USING TIMESTAMP {OLD}",
                f"INSERT INTO {{k}}.scalars (\"K\", {names}) VALUES (3, {two}) USING TIMESTAMP {OLD}",
                f"INSERT INTO {{k}}.scalars (\"K\", n, t) VALUES (4, 1, 'x') USING TIMESTAMP {OLD}",
                f"INSERT INTO {{k}}.scalars (\"K\", {names}) VALUES (5, {one}) USING TIMESTAMP {OLD}")
    assert not pair.differences("scalars").ok()
    for i in (1, 2, 3, 4, 5):
        assert pair.sync(("UPDATE scalars SET n = ? WHERE \"K\" = ?", [integer(0), integer(i)])) == 0
    assert pair.equal("scalars").rows == 4


@quick
def test_all_forms_of_a_key(pair):
    uuid, key = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "(1, 'it''s')"
    pair.both("TRUNCATE {k}.keys")
    for i in range(6):
        pair.origin(f"INSERT INTO {{k}}.keys (a, b, c, d, v) VALUES ({uuid}, 'b{i}', {key}, {TIME + i}, {i})")
    where = f"a = {uuid} AND b = 'b%d' AND c = {key} AND d = %d"
    assert pair.sync(f"UPDATE keys SET v = 1 WHERE {where % (0, TIME)}") == 0
    assert pair.sync(f"UPDATE {pair.keyspace}.keys SET v = 1 WHERE a = {uuid} AND b = 'b1' AND (c, d) = ({key}, {TIME + 1})") == 0
    assert pair.sync(f"INSERT INTO keys (d, v, c, b, a) VALUES (?, 1, {key}, 'b2', ?)") == 126  # ENOKEY: no values
    assert pair.sync((f"INSERT INTO keys (d, v, c, b, a) VALUES (:d, 1, {key}, :b, :a)",
                      [bytes.fromhex(uuid.replace("-", "")), b"b2", struct.pack(">q", TIME + 2)], ["a", "b", "d"])) == 0
    document = json.dumps({"a": uuid, "b": "b3", "c": [1, "it's"], "d": TIME + 3, "V": 9})
    assert pair.sync(("INSERT INTO keys JSON ?", [document.encode()])) == 0
    document = json.dumps({"a": uuid, "b": "b4", "c": [1, "it's"], "d": TIME + 4}).replace("'", "''")
    assert pair.sync(f"INSERT INTO keys JSON '{document}'") == 0
    assert pair.sync(f"DELETE v FROM keys WHERE a = {uuid} AND b IN ('b5', 'b6') AND (c, d) IN (({key}, {TIME + 5}), ({key}, 7))") == 0
    assert pair.equal("keys").rows == 6
    assert pair.sync("UPDATE keys SET v = 1 WHERE a = now() AND b = 'x' AND c = (1, 'x') AND d = 1") == 126
    assert pair.sync("UPDATE keys SET v = 1 WHERE a = " + uuid) == 126
    assert pair.sync("INSERT INTO keys (a, b, c, d) VALUES (uuid(), 'x', (1, 'x'), 1)") == 126
    assert pair.sync("SELECT * FROM keys") == 126


@quick
def test_the_string_now_is_a_key_only_as_a_text(pair):
    """Nobody knows which instant a timestamp took it for; another row must not be taken for the one that was written."""
    tables = ("CREATE TABLE IF NOT EXISTS {k}.texts (k text, c text, v int, PRIMARY KEY (k, c))",
              "CREATE TABLE IF NOT EXISTS {k}.instants (k timestamp, c timestamp, v int, PRIMARY KEY (k, c))")
    pair.both(*tables, "TRUNCATE {k}.texts", "TRUNCATE {k}.instants")
    pair.origin("INSERT INTO {k}.texts (k, c, v) VALUES ('now', 'NOW', 1)", "INSERT INTO {k}.instants (k, c, v) VALUES ('now', 'now', 1)")
    pair.target("INSERT INTO {k}.texts (k, c, v) VALUES ('now', 'a', 1)", "INSERT INTO {k}.texts (k, c, v) VALUES ('other', 'a', 1)")
    assert pair.sync("INSERT INTO texts (k, c, v) VALUES ('now', 'NOW', 1)") == 0
    assert pair.sync("DELETE FROM texts WHERE k = $$now$$ AND c > 'NOW'") == 0
    assert pair.sync("INSERT INTO texts JSON '{\"k\": \"other\", \"c\": \"now\"}'") == 0
    assert pair.sync("DELETE FROM texts WHERE k IN ('other', 'now') AND c < 'b'") == 0
    assert pair.equal("texts").rows == 1
    for statement in ("INSERT INTO instants (k, c, v) VALUES ('now', 5, 1)", "INSERT INTO instants (k, c, v) VALUES (5, 'now', 1)",
                      "DELETE FROM instants WHERE k = 5 AND c < 'now'", "DELETE FROM instants WHERE k = 5 AND (c) < ('now')",
                      "INSERT INTO instants JSON '{\"k\": \"now\", \"c\": 5}'", "INSERT INTO instants (k, c) VALUES (fromJson('\"now\"'), 5)"):
        assert pair.sync(statement) != 0, statement


@quick
def test_ttl_is_what_remains(pair):
    pair.both("TRUNCATE {k}.expiring")
    pair.origin("INSERT INTO {k}.expiring (k, v, w, m) VALUES (1, 1, 1, {1: 1}) USING TTL 100",
                "UPDATE {k}.expiring USING TTL 0 SET w = 2 WHERE k = 1",
                "UPDATE {k}.expiring USING TTL 300 SET m[2] = 2 WHERE k = 1",
                "INSERT INTO {k}.expiring (k, v) VALUES (2, 1)",
                "INSERT INTO {k}.expiring (k, v) VALUES (3, 1) USING TTL 0",
                f"INSERT INTO {{k}}.expiring (k, v) VALUES (4, 1) USING TIMESTAMP {OLD} AND TTL 50")
    pair.target(f"INSERT INTO {{k}}.expiring (k, v) VALUES (4, 1) USING TIMESTAMP {OLD} AND TTL 900")
    time.sleep(2.1)
    for i in (1, 2, 3, 4):
        assert pair.sync(("UPDATE expiring SET v = ? WHERE k = ?", [integer(0), integer(i)])) == 0
    if pair.old:
        pair.both("DELETE m FROM {k}.expiring WHERE k = 1")
    result = pair.differences("expiring", slack=1.6)
    # Under one timestamp the longer life prevails: that cell had to move by a microsecond.
    assert (result.lost, result.ttl, result.duplicated) == (0, 0, 1), "\n".join(result.notes)


@quick
def test_collections(pair):
    pair.both("TRUNCATE {k}.many",
              f"INSERT INTO {{k}}.many (k, v, se, m, u, ml) VALUES (1, 1, {{'a', 'b'}}, {{'x': 1, 'y': 2}}, "
              f"{{street: 's', number: 1}}, {{1: [1]}}) USING TIMESTAMP {OLD}")
    pair.origin(f"UPDATE {{k}}.many USING TIMESTAMP {OLD + 5} SET se = se + {{'c'}}, m['x'] = 5, u.\"Zip Code\" = 'z', "
                "ml[1] = [1, 2] WHERE k = 1",
                f"DELETE se['a'], m['y'], u.number FROM {{k}}.many USING TIMESTAMP {OLD + 6} WHERE k = 1",
                f"INSERT INTO {{k}}.many (k, se, m, u) VALUES (2, {{'q'}}, {{'r': 1}}, {{number: 7}}) USING TIMESTAMP {OLD + 7}",
                f"UPDATE {{k}}.many USING TIMESTAMP {OLD + 8} SET se = se + {{'w'}}, m = m + {{'s': 2}} WHERE k = 2")
    pair.target(f"UPDATE {{k}}.many USING TIMESTAMP {OLD + 3} SET se = se + {{'z'}}, m['z'] = 9 WHERE k = 1",
                f"INSERT INTO {{k}}.many (k, v, se, m, u) VALUES (3, 1, {{'a'}}, {{'b': 1}}, {{number: 1}}) USING TIMESTAMP {OLD}",
                f"INSERT INTO {{k}}.many (k, v, se, m) VALUES (4, 1, {{'a', 'c'}}, {{'b': 1, 'd': 2}}) USING TIMESTAMP {OLD}")
    pair.origin(f"INSERT INTO {{k}}.many (k, v) VALUES (4, 1) USING TIMESTAMP {OLD}")
    for i in (1, 2, 3, 4):
        assert pair.sync(("UPDATE many SET se = se + ? WHERE k = ?", [b"", integer(i)])) == 0
    assert pair.equal("many").rows == 3


@quick
@pytest.mark.parametrize("origin,target", [
    ([1, 2, 3], []), ([1, 2, 3], [1]), ([1, 2, 3], [3]), ([1, 2, 3], [2, 3]), ([1, 2], [1, 2]), ([], [4, 5]),
    ([1, 2, 3], [3, 2, 1]), ([1], [1, 1]), ([1, 1], [1]), ([2], [1, 2, 3])])
def test_lists(pair, origin, target):
    pair.both("TRUNCATE {k}.many")
    for n, (do, values) in enumerate(((pair.origin, origin), (pair.target, target))):
        do(f"INSERT INTO {{k}}.many (k, v) VALUES (1, 1) USING TIMESTAMP {OLD}")
        for i in values:
            do(f"UPDATE {{k}}.many USING TIMESTAMP {OLD + i} SET l = l + [{i}] WHERE k = 1")
    for _ in range(2):  # the second changes nothing
        assert pair.sync(("UPDATE many SET l = l + ? WHERE k = ?", [b"", integer(1)])) == 0
    result = pair.differences("many")
    assert result.lost == 0 and result.ttl == 0, "\n".join(result.notes)
    # What is added at an end keeps its timestamps; what is written anew moves to just behind what was there.
    if origin[: len(target)] == target or (target and origin[-len(target):] == target):
        assert result.duplicated == 0, "\n".join(result.notes)


@quick
def test_statics_rows_and_ranges(pair):
    pair.both("TRUNCATE {k}.wide")
    for c in range(8):
        pair.origin(f"INSERT INTO {{k}}.wide (k, c, d, v) VALUES (1, {c}, 'x', {c}) USING TIMESTAMP {OLD}")
        pair.target(f"INSERT INTO {{k}}.wide (k, c, d, v) VALUES (1, {c}, 'x', {c}) USING TIMESTAMP {OLD}",
                    f"INSERT INTO {{k}}.wide (k, c, d, v) VALUES (2, {c}, 'y', {c}) USING TIMESTAMP {OLD}")
    pair.origin(f"DELETE FROM {{k}}.wide USING TIMESTAMP {OLD + 1} WHERE k = 1 AND c > 2 AND c <= 4",
                f"UPDATE {{k}}.wide USING TIMESTAMP {OLD + 2} SET s = 5, ss = {{1, 2}} WHERE k = 1",
                f"UPDATE {{k}}.wide USING TIMESTAMP {OLD + 2} SET s = 6 WHERE k = 3",
                f"UPDATE {{k}}.wide USING TIMESTAMP {OLD + 2} SET w = 'w' WHERE k = 1 AND c = 7 AND d = 'x'")
    pair.target(f"UPDATE {{k}}.wide USING TIMESTAMP {OLD + 2} SET s = 6 WHERE k = 4")
    one, two = integer(1), integer(2)
    # The range alone first: row 7 is still another one then.
    assert pair.sync(("DELETE FROM wide WHERE k = ? AND c > ? AND c <= ?", [one, integer(2), integer(4)])) == 0
    result = pair.differences("wide")
    assert sum("[1, 3, 'x']" in n or "[1, 4, 'x']" in n for n in result.notes) == 0, "\n".join(result.notes)
    assert any("[1, 7, 'x'] w" in n for n in result.notes)
    assert pair.sync(("DELETE FROM wide WHERE k = ?", [two])) == 0
    for k in (1, 3, 4):
        assert pair.sync(("UPDATE wide SET s = ? WHERE k = ?", [one, integer(k)])) == 0
    assert pair.sync(("UPDATE wide SET w = ? WHERE k = ? AND c IN ? AND d = 'x'",
                      [b"w", one, integer(2) + integer(4) + integer(6) + integer(4) + integer(7)])) == 0
    assert pair.equal("wide").rows == 8


def test_rows_that_are_only_a_marker(pair):
    pair.both("TRUNCATE {k}.bare", "TRUNCATE {k}.wide")
    past = int((time.time() - 20) * 1e6)
    pair.origin("INSERT INTO {k}.bare (k, c) VALUES (1, 1)", "INSERT INTO {k}.wide (k, c, d) VALUES (1, 1, 'm')")
    pair.target(f"INSERT INTO {{k}}.bare (k, c) VALUES (1, 2) USING TIMESTAMP {past}",
                "INSERT INTO {k}.bare (k, c) VALUES (1, 3)")  # that one is young: it takes SETTLE to be sure
    assert pair.sync("INSERT INTO wide (k, c, d) VALUES (1, 1, 'm')") == 0
    assert pair.sync("INSERT INTO bare (k, c) VALUES (1, 1)") == 0
    begin = time.time()
    assert pair.sync("DELETE FROM bare WHERE k = 1 AND c = 2") == 0
    assert time.time() - begin < 5
    assert pair.sync("DELETE FROM bare WHERE k = 1 AND c = 3") == 0
    assert 8 < time.time() - begin < 16
    assert pair.equal("bare", "wide").rows == 2


@quick
def test_what_the_target_has_newer(pair):
    pair.both("TRUNCATE {k}.scalars")
    pair.origin(f"INSERT INTO {{k}}.scalars (\"K\", n, t) VALUES (1, 1, 'old') USING TIMESTAMP {OLD}")
    pair.target(f"INSERT INTO {{k}}.scalars (\"K\", n, t) VALUES (1, 1, 'refused') USING TIMESTAMP {OLD + 100}")
    assert pair.sync(("UPDATE scalars SET n = 1 WHERE \"K\" = ?", [integer(1)])) == 0
    result = pair.differences("scalars")
    assert result.lost == 0 and result.duplicated == 2, "\n".join(result.notes)  # equal values; nothing lowers a timestamp


@quick
def test_lightweight_transactions(pair):
    pair.both("TRUNCATE {k}.scalars")
    texts = ["INSERT INTO {k}.scalars (\"K\", n) VALUES (1, 1) IF NOT EXISTS",
             "UPDATE {k}.scalars SET n = 2 WHERE \"K\" = 1 IF n = 1",
             "INSERT INTO {k}.scalars (\"K\", n) VALUES (2, 1) IF NOT EXISTS",
             "DELETE FROM {k}.scalars WHERE \"K\" = 2 IF EXISTS",
             "DELETE n FROM {k}.scalars WHERE \"K\" = 1 IF n = 2"]
    for t in texts:
        pair.origin(t)
        assert pair.sync(t.replace("{k}", pair.keyspace), serial=True) == 0
        pair.equal("scalars")


@quick
def test_batches(pair):
    pair.both("TRUNCATE {k}.scalars", "TRUNCATE {k}.many")
    batch = ("BEGIN BATCH INSERT INTO scalars (\"K\", n) VALUES (?, ?); UPDATE {k}.many SET l = l + [1] WHERE k = ?; "
             "UPDATE many SET l = l + [2], v = 3 WHERE k = ? APPLY BATCH")
    pair.origin("USE {k}", batch.replace("?", "7"))
    assert pair.sync((batch.replace("{k}", pair.keyspace), [integer(7)] * 4)) == 0
    pair.equal("scalars", "many")
    # As the protocol's BATCH, and far too large for one.
    children = []
    for i in range(100, 160):
        pair.origin(f"INSERT INTO {{k}}.scalars (\"K\", t) VALUES ({i}, '{'x' * 2000}')")
        children.append(("INSERT INTO scalars (\"K\", t) VALUES (?, ?)", [integer(i), b"x"]))
    assert pair.sync(*children) == 0
    assert pair.equal("scalars").rows == 61


@quick
def test_what_cannot_be_done(pair):
    pair.origin("CREATE TABLE IF NOT EXISTS {k}.alone (k int PRIMARY KEY, v int)")
    try:
        assert pair.sync("UPDATE counters SET n = n + 1 WHERE k = 1") == 95  # ENOTSUP
        assert pair.sync("UPDATE alone SET v = 1 WHERE k = 1") == 2  # ENOENT
        assert pair.sync("UPDATE nothing SET v = 1 WHERE k = 1") == 2
        # The table comes: nobody has to say so.
        pair.target("CREATE TABLE {k}.alone (k int PRIMARY KEY, v int)")
        pair.origin("INSERT INTO {k}.alone (k, v) VALUES (1, 1)")
        assert pair.sync("UPDATE alone SET v = 1 WHERE k = 1") == 0
        # A new column is seen when it was announced.
        pair.both("ALTER TABLE {k}.alone ADD w int")
        pair.origin("UPDATE {k}.alone SET w = 2 WHERE k = 1")
        pair.tool.line(schema=pair.keyspace)
        assert pair.sync("UPDATE alone SET w = 2 WHERE k = 1") == 0
        assert pair.equal("alone").rows == 1
        pair.both("TRUNCATE {k}.bare")
        for i in range(0, 10050, 150):
            pair.target("BEGIN UNLOGGED BATCH " + " ".join(
                f"INSERT INTO {{k}}.bare (k, c) VALUES (1, {c})" for c in range(i, i + 150)) + " APPLY BATCH")
        assert pair.sync("DELETE FROM bare WHERE k = 1") == 7  # E2BIG
    finally:
        for s in (0, 1):
            pair.run(s, "DROP TABLE IF EXISTS {k}.alone")


@quick
def test_backwards(pair):
    """After a cutover the target is the truth."""
    pair.both("TRUNCATE {k}.scalars")
    pair.target("INSERT INTO {k}.scalars (\"K\", n) VALUES (1, 5)")
    assert pair.sync(("UPDATE scalars SET n = ? WHERE \"K\" = 1", [integer(5)]), **{"from": "target"}) == 0
    assert pair.equal("scalars").rows == 1


@quick
def test_no_write_is_lost_beside_writers(pair):
    """Writers on the origin whose writes are mirrored with their timestamps a moment later, as the mirror does, while the
    same rows are synced all the time."""
    pair.both("TRUNCATE {k}.scalars", "TRUNCATE {k}.many")
    stop, errors, written = threading.Event(), [], [0]

    def writer(number):
        try:
            for i in range(100000):
                if stop.is_set():
                    return
                now, k = int(time.time() * 1e6), (i + number) % 4
                statements = [f"UPDATE {{k}}.scalars USING TIMESTAMP {now} SET n = {i}, t = '{number}' WHERE \"K\" = {k}",
                              f"UPDATE {{k}}.many USING TIMESTAMP {now} SET se = se + {{'{i % 7}'}}, m['{i % 5}'] = {i} "
                              f"WHERE k = {k}"]
                if i % 5 == number:
                    statements = [f"DELETE t FROM {{k}}.scalars USING TIMESTAMP {now} WHERE \"K\" = {k}",
                                  f"DELETE se['{i % 7}'], m['{i % 5}'] FROM {{k}}.many USING TIMESTAMP {now} WHERE k = {k}"]
                if i % 17 == number:
                    statements = [f"DELETE FROM {{k}}.scalars USING TIMESTAMP {now} WHERE \"K\" = {k}"]
                for s in statements:
                    pair.origin(s)
                    time.sleep(0.002 * (i % 3))
                    pair.target(s)
                    written[0] += 1
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)

    threads = [threading.Thread(target=writer, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    end = time.time() + 8
    jobs = 0
    while time.time() < end:
        for k in range(4):
            pair.tool.submit(("UPDATE scalars SET n = 0 WHERE \"K\" = ?", [integer(k)]), keyspace=pair.keyspace)
            pair.tool.submit(("UPDATE many SET v = 0 WHERE k = ?", [integer(k)]), keyspace=pair.keyspace)
            jobs += 2
        time.sleep(0.005)
    stop.set()
    for t in threads:
        t.join()
    assert not errors, errors
    assert set(pair.tool.wait().values()) == {0}
    assert written[0] > 200 and jobs > 200
    if pair.old:
        for k in range(4):
            assert pair.sync(("UPDATE many SET v = 0 WHERE k = ?", [integer(k)])) == 0
    pair.equal("scalars", "many")


def test_trouble_of_the_target_is_waited_for(pair, target):
    """The target hangs: jobs wait, go on when it is back, and those of one row have become one."""
    pair.both("TRUNCATE {k}.scalars")
    target.pause()
    try:
        for i in range(20):
            pair.origin(f"INSERT INTO {{k}}.scalars (\"K\", n) VALUES ({i % 5}, {i})")
            pair.tool.submit(("UPDATE scalars SET n = 0 WHERE \"K\" = ?", [integer(i % 5)]), keyspace=pair.keyspace)
        time.sleep(7)
    finally:
        target.resume()
    assert set(pair.tool.wait().values()) == {0}
    assert pair.equal("scalars").rows == 5


def test_speed(pair, clusters):
    """Single-row jobs with 2 threads: how many rows a second. The figure goes to docs/row-sync.md."""
    pair.both("TRUNCATE {k}.scalars")
    count = 3000
    insert = pair.sides[0].session.prepare(f"INSERT INTO {pair.keyspace}.scalars (\"K\", n, t) VALUES (?, ?, ?)")
    futures = [pair.sides[0].session.execute_async(insert, (i, i, "x" * 100)) for i in range(count)]
    for f in futures:
        f.result()
    for name in ("repairing", "equal"):
        tool = Tool(*clusters)
        for i in range(count):
            tool.submit(("UPDATE scalars SET n = ? WHERE \"K\" = ?", [integer(0), integer(i)]), keyspace=pair.keyspace)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        counters = tool.end()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_us = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count * 1e6
        assert counters["done"] == count and counters["failed"] == 0
        print(f"rowsync: {count / counters['seconds']:.0f} rows/s {name}, {cpu_us:.0f} µs CPU a row; {counters}; load {os.getloadavg()[0]:.0f}")
        assert counters["repaired"] == (3 * count if name == "repairing" else 0)
    assert pair.equal("scalars").rows == count
