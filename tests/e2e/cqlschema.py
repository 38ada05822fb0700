# SPDX-License-Identifier: Apache-2.0
"""The schema of the differential test: every CQL type and every kind of table, and columns with names that need quotes."""

from cqlvalues import SCALARS, bare, has, name

ADDR = ("udt", "addr", (("street", "text"), ("zip", "int"), ("phones", ("frozen", ("set", "text")))))
POINT = ("udt", '"Point"', (("x", "double"), ('"Y"', "double")))
TYPES = (ADDR, POINT)
KEYS = 9  # partitions of each table that statements touch


def frozen(t):
    return ("frozen", t)


class Table:
    """Columns are (name as CQL writes it, type); clustering ones may have a third member: True = DESC."""

    def __init__(self, table, partition, clustering=(), static=(), regular=(), options="", kinds=(), counter=False):
        self.table, self.partition, self.clustering = table, partition, [c[:2] for c in clustering]
        self.order = [(c[0], len(c) > 2 and c[2]) for c in clustering]
        self.static, self.regular, self.options, self.counter = list(static), list(regular), options, counter
        self.kinds = set(kinds)  # what the generator makes of it: "lwt", "json", "index", "functions", "name"

    @property
    def key(self):
        return list(self.partition) + list(self.clustering)

    @property
    def columns(self):
        return self.static + self.regular

    def create(self, keyspace):
        columns = [f"{c} {name(t)}" for c, t in self.key] + [f"{c} {name(t)} static" for c, t in self.static]
        columns += [f"{c} {'counter' if self.counter else name(t)}" for c, t in self.regular]
        key = "(" + ", ".join(c for c, _ in self.partition) + ")" + "".join(f", {c}" for c, _ in self.clustering)
        options = [self.options] if self.options else []
        if any(desc for _, desc in self.order):
            options.append("CLUSTERING ORDER BY (" + ", ".join(f"{c} {'DESC' if d else 'ASC'}" for c, d in self.order) + ")")
        tail = " WITH " + " AND ".join(options) if options else ""
        return f"CREATE TABLE {keyspace}.{self.table} ({', '.join(columns)}, PRIMARY KEY ({key})){tail}"


ID = [("id", "int")]


def tables(vectors=True):
    return [
        Table("scalars", ID, regular=[(f"c_{t}", t) for t in SCALARS], kinds=("json",)),
        Table(
            "collections",
            ID,
            regular=[
                ("s", ("set", "int")),
                ("st", ("set", "text")),
                ("m", ("map", "text", "int")),
                ("mm", ("map", "int", frozen(("map", "text", "bigint")))),
                ("ms", ("map", "timeuuid", frozen(("set", "inet")))),
                ("fs", frozen(("set", "text"))),
                ("fm", frozen(("map", "text", frozen(("set", "int"))))),
                ("u", ADDR),
                ("fu", frozen(ADDR)),
                ("p", frozen(POINT)),
                ("tup", ("tuple", "int", "text", "boolean")),
                ("ss", ("set", frozen(("tuple", "int", "text")))),
                ("su", ("set", frozen(POINT))),
            ],
            kinds=("json", "lwt"),
        ),
        Table(
            "lists",
            ID,
            regular=[
                ("l", ("list", "int")),
                ("lt", ("list", "text")),
                ("lu", ("list", frozen(ADDR))),
                ("ll", ("list", frozen(("list", "int")))),
                ("fl", frozen(("list", "int"))),
                ("ml", ("map", "text", frozen(("list", "int")))),
                ("n", "int"),
            ]
            + ([("vec", ("vector", "float", 3)), ("vd", ("vector", "double", 2))] if vectors else []),
            kinds=("json", "lwt"),
        ),
        Table(
            "wide",
            [("a", "text"), ("b", "int")],
            [("c", "timestamp", True), ("d", "smallint")],
            static=[("s", "text"), ("sm", ("map", "text", "int"))],
            regular=[("v", "text"), ("n", "int"), ("e", ("set", "int"))],
            kinds=("json", "lwt"),
        ),
        Table(
            '"Case"',
            [('"Key"', "text")],
            [('"select"', "int")],
            regular=[
                ('"from"', "text"),
                ('"Order By"', ("set", "int")),
                ('"a""b"', "bigint"),
                ('"now()"', ("map", "text", "text")),
            ],
            kinds=("json", "lwt"),
        ),
        Table("name", ID, regular=[("name", "text"), ("other", "text")], kinds=("name", "lwt")),
        Table(
            "expiring",
            ID,
            [("c", "date")],
            regular=[("v", "text"), ("tags", ("set", "text")), ("n", "varint")],
            options="default_time_to_live = 5000",
            kinds=("json", "lwt"),
        ),
        Table("indexed", ID, regular=[("city", "ascii"), ("n", "int"), ("note", "text")], kinds=("index",)),
        Table("counts", ID, [("c", "text")], regular=[("hits", "bigint"), ('"Misses"', "bigint")], counter=True),
        Table(
            "moments",
            ID,
            regular=[
                ("t", "timeuuid"),
                ("u", "uuid"),
                ("ts", "timestamp"),
                ("d", "date"),
                ("tm", "time"),
                ("b", "bigint"),
                ("bl", "blob"),
                ("m", ("map", "text", "timeuuid")),
                ("tup", ("tuple", "uuid", "int")),
                ("su", ("set", "uuid")),
            ],
            kinds=("functions",),
        ),
        Table("stream", [("p", "int")], [("t", "timeuuid", True)], regular=[("v", "text")], kinds=("functions",)),
    ]


def schema(keyspace, vectors=True):
    """The statements that make it in an existing keyspace."""
    return (
        [f"CREATE TYPE {keyspace}.{t[1]} ({', '.join(f'{f} {name(x)}' for f, x in t[2])})" for t in TYPES]
        + [t.create(keyspace) for t in tables(vectors)]
        + [
            f"CREATE INDEX ON {keyspace}.indexed (n)",
            f"CREATE MATERIALIZED VIEW {keyspace}.by_city AS SELECT * FROM {keyspace}.indexed "
            "WHERE city IS NOT NULL AND id IS NOT NULL "
            "PRIMARY KEY (city, id)",
        ]
    )


def is_list(t):
    """Whether assigning it may mean assigning a list, as far as a text or bind types can tell."""
    return has(t, "list") or has(t, "vector")


def is_multicell(t, kind):
    return not isinstance(t, str) and t[0] == kind and bare(t) is t
