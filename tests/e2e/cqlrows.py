# SPDX-License-Identifier: Apache-2.0
"""All rows of a keyspace as one cluster has them: bytes as they are stored, WRITETIME, and when they expire. Since
Cassandra 5 also of each element of a collection and each field of a user type."""

import struct
import time

import cqlwire
import lab

SLACK = 2.5  # seconds that two expiries may differ: whole seconds on both sides, and a delivery in between
PLAIN = {
    "ascii",
    "bigint",
    "blob",
    "boolean",
    "date",
    "decimal",
    "double",
    "duration",
    "float",
    "inet",
    "int",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timeuuid",
    "tinyint",
    "uuid",
    "varchar",
    "varint",
}
NO_CELL = (None, (), ())


def client(cluster, version=5):
    return cqlwire.Client(cluster.address, version=version, user=lab.USER, password=lab.PASSWORD, timeout=60)


def numbers(data, code):
    """A number, or the list of them that a column of several cells has; () where there is none."""
    size = struct.calcsize(code)
    if data is None:
        return ()
    if len(data) == size:
        return struct.unpack(code, data)
    r = cqlwire.Reader(data)
    return tuple(struct.unpack(code, b)[0] if b is not None else None for b in (r.bytes() for _ in range(r.int())))


def text(data):
    return data.decode()


def one_cell(ctype):
    return ctype in PLAIN or ctype.startswith(("frozen<", "tuple<", "vector<"))


class Reader:
    """One cluster, read again and again."""

    def __init__(self, cluster):
        self.name, self.client = cluster.name, client(cluster)
        version = text(self.ask("SELECT release_version FROM system.local")[0]["release_version"])
        self.elements = int(version.split(".")[0]) >= 5

    def close(self):
        self.client.close()

    def answer(self, statement):
        """A node that is busy gives a read up sooner than we do."""
        for attempt in range(4):
            a = self.client.query(statement, consistency="ONE")
            if a.code not in (cqlwire.READ_TIMEOUT, cqlwire.READ_FAILURE):
                break
            time.sleep(0.3 * (attempt + 1))
        assert a.code is None, f"{self.name}: {statement}: {a}"
        return a

    def ask(self, statement):
        return self.answer(statement).rows()

    def tables(self, keyspace):
        """{table: ([key columns], [(column, type)])}"""
        out = {}
        for r in self.ask(
            f"SELECT table_name, column_name, kind, position, type FROM system_schema.columns WHERE keyspace_name = '{keyspace}'"
        ):
            kind, position = text(r["kind"]), struct.unpack(">i", r["position"])[0]
            out.setdefault(text(r["table_name"]), []).append((kind, position, text(r["column_name"]), text(r["type"])))
        for table, columns in out.items():
            key = sorted((k != "partition_key", p, c) for k, p, c, _ in columns if k in ("partition_key", "clustering"))
            out[table] = [c for _, _, c in key], sorted((c, t) for k, _, c, t in columns if k in ("static", "regular"))
        return out

    def rows(self, keyspace, table, key, cells):
        """{key: {column: (bytes, (WRITETIME, …), (expiry, …))}}"""

        def quoted(c):
            return '"' + c.replace('"', '""') + '"'

        select = [quoted(c) for c in key]
        timed = [t != "counter" and (self.elements or one_cell(t)) for _, t in cells]
        for (c, _), with_times in zip(cells, timed):
            select += [quoted(c)] + ([f"WRITETIME({quoted(c)})", f"TTL({quoted(c)})"] if with_times else [])
        a = self.answer(f"SELECT {', '.join(select)} FROM {quoted(keyspace)}.{quoted(table)}")
        now, out = time.time(), {}
        for values in a.table()[1]:
            at, row = len(key), {}
            for (column, _), with_times in zip(cells, timed):
                if with_times:
                    ttl = numbers(values[at + 2], ">i")
                    row[column] = (
                        values[at],
                        numbers(values[at + 1], ">q"),
                        tuple(now + t if t is not None else None for t in ttl),
                    )
                    at += 3
                else:
                    row[column] = values[at], (), ()
                    at += 1
            out[tuple(values[: len(key)])] = row
        return out

    def read(self, keyspace, without=()):
        """{(table, key): row} of all tables and views."""
        out = {}
        for table, (key, cells) in self.tables(keyspace).items():
            if table not in without:
                out.update(((table, k), r) for k, r in self.rows(keyspace, table, key, cells).items())
        return out


def readers(clusters):
    """One for each. What only some of them can tell none is asked for."""
    out = [Reader(c) for c in clusters]
    for r in out:
        r.elements = all(x.elements for x in out)
    return out


def show(at):
    table, key = at
    return f"{table}[{', '.join('null' if k is None else repr(k)[1:] if k.isascii() else k.hex() for k in key)}]"


def short(data):
    return "null" if data is None else repr(data) if len(data) < 60 else f"{data[:50]!r}… {len(data)} bytes"


def expire_together(one, two):
    # All the same or none: Cassandra leaves elements without TTL out, or says null.
    one, two = [t for t in one if t is not None], [t for t in two if t is not None]
    return len(one) == len(two) and all(abs(x - y) <= SLACK for x, y in zip(one, two))


def differences(one, two, names=("origin", "target"), times=lambda x, y: x == y):
    """[(where, words)] of two results of read(); times: which WRITETIMEs pass for equal."""
    out = []
    for at in sorted(one.keys() | two.keys(), key=repr):
        if at not in one or at not in two:
            there, gone = names if at in one else names[::-1]
            out.append(
                (
                    at,
                    f"only on the {there}, not on the {gone}: {show(at)} {[c for c, v in (one.get(at) or two[at]).items() if v[0]]}",
                )
            )
            continue
        for column in sorted(one[at].keys() | two[at].keys()):
            (v1, w1, e1), (v2, w2, e2) = one[at].get(column, NO_CELL), two[at].get(column, NO_CELL)
            if v1 != v2:
                out.append((at, f"{show(at)} {column}: {names[0]} {short(v1)} at {w1}, {names[1]} {short(v2)} at {w2}"))
            elif not times(w1, w2):
                out.append((at, f"{show(at)} {column}: {short(v1)} written on the {names[0]} at {w1}, on the {names[1]} at {w2}"))
            elif not expire_together(e1, e2):
                out.append((at, f"{show(at)} {column}: expires on the {names[0]} at {e1}, on the {names[1]} at {e2}"))
    return out


def settle(origin, target, keyspace, seconds=20, without=(), times=lambda x, y: x == y):
    """(differences, rows of the origin) once both are equal, or when the time is over: the mirror is asynchronous."""
    end = time.time() + seconds
    while True:
        one = origin.read(keyspace, without)
        found = differences(one, target.read(keyspace, without), times=times)
        if not found or time.time() > end:
            return found, one
        time.sleep(0.3)
