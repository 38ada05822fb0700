# SPDX-License-Identifier: Apache-2.0
"""Random statements over cqlschema's tables, the same for the same seed.

What makes them comparable on two keyspaces that get them one after the other: each partition has one way with
timestamps. 0: the client gives all of them, out of a clock that it counts itself (near 1970, so that they collide and
come late); 1: it gives none; 2: both, where none always wins. Otherwise the two clocks of a test run would decide. Conditional statements are for
partitions of the second way: a condition and a client's own timestamps do not go together in Cassandra itself, and the tombstones that
the one leaves for the other nobody can read.

A statement has tags for what it takes to mirror it: "lwt", "counter", "list", "function", "undecided". One whose tags
the test did not ask for is not made.
"""

import random

import cqlvalues
from cqlbroken import BROKEN
from cqlschema import KEYS, is_list, is_multicell, tables
from cqlstatement import KS, Binder, Piece, Statement
from cqlvalues import pack, pick
from cqlwire import COUNTER, LOGGED, UNLOGGED, UNSET

CLIENT, SERVER, MIXED = range(3)
CLOCK = 1_000_000_000  # µs: where the clients' own clock begins
NAMES = ("plain", "it's", "ümläut", "-- x", "", "now()", "Case", "x;y", "[0]")
ALL = frozenset(("plain", "lwt", "counter", "list", "function", "undecided"))


class Maker:
    def __init__(self, seed, tags=ALL, vectors=True, versions=(3, 4, 5)):
        self.rng = random.Random(seed)
        self.tags, self.versions = set(tags), versions
        self.tables = tables(vectors)
        self.by_name = {t.table: t for t in self.tables}
        self.clock, self.number, self.past = CLOCK, 0, []
        self.stamped = False  # inside a batch that has its timestamp for all
        fixed = random.Random(5)
        self.near = {t: [pick(t, fixed) for _ in range(4)] for t in ("text", "int", "smallint", "timestamp", "date", "timeuuid")}
        self.weights = [
            (self.insert, 16),
            (self.json, 5),
            (self.update, 22),
            (self.delete, 8),
            (self.select, 14),
            (self.text_batch, 4),
            (self.counter, 5),
            (self.function, 7),
            (self.broken, 7),
        ]
        self.makers = [m for m, n in self.weights for _ in range(n)]

    # ---- parts

    def chance(self, share):
        return self.rng.random() < share

    def any(self, of):
        return self.rng.choice(of)

    def table(self, kind=None, counter=False):
        return self.any(
            [
                t
                for t in self.tables
                if t.counter == counter
                and (kind is None or kind in t.kinds)
                and (kind == "functions" or "functions" not in t.kinds)
            ]
        )

    def word(self, text):
        """A keyword as somebody might write it."""
        return self.any((text, text, text, text.lower(), text.capitalize()))

    def gap(self):
        return self.any((" ",) * 12 + ("\n", "\t", "  ", " /* ; ' -- */ ", " -- it's; BEGIN BATCH\n", " // x\n"))

    def ref(self, t):
        return self.any(("", "", f"{KS}.", f'"{KS}".', f"{KS} . ")) + t.table

    def index(self, policies=(CLIENT, SERVER, MIXED)):
        return self.any([i for i in range(KEYS) if i % 3 in policies])

    def partition(self, t, index):
        return [NAMES[index] if k == "text" else index * 7 - 20 if len(t.partition) > 1 else index for _, k in t.partition]

    def near_value(self, kind):
        return self.any(self.near[kind])

    def touch(self, t, index):
        return {(t.table, pack_key(t, self.partition(t, index)))}

    def binder(self, batch=False):
        return Binder(self.rng, self.any((0, 0, 0.5, 1)), not batch and self.chance(0.15))

    def ticks(self):
        self.clock += 10
        return self.clock + self.any((0, 0, 0, -10, -25, -300))

    def using(self, b, policy, ttl=True, flag=True):
        """(USING clause, timestamp for the request or None)"""
        parts, stamp = [], None
        if ttl and self.chance(0.15):
            parts.append("TTL " + b.term("int", self.any((600, 7000, 100000, 0))))
        if not self.stamped and (policy == CLIENT or policy == MIXED and self.chance(0.5)):
            if not flag or self.chance(0.5):
                parts.append("TIMESTAMP " + b.term("bigint", self.ticks()))
            else:
                stamp = self.ticks()
        self.rng.shuffle(parts)
        return (f" {self.word('USING')} " + " AND ".join(parts) if parts else ""), stamp

    def where(self, b, t, index, clustering=None, rows=True):
        """The whole key, or a partition, or so many clustering columns."""
        out = [f"{c} = {b.term(k, v)}" for (c, k), v in zip(t.partition, self.partition(t, index))]
        n = len(t.clustering) if clustering is None else clustering
        if rows:
            out += [f"{c} = {b.term(k, self.near_value(k))}" for c, k in t.clustering[:n]]
        return " AND ".join(out)

    def value(self, b, t):
        """A term for a column as a whole; now and then null, or a marker that is not set."""
        if self.chance(0.1):
            return b.bind(self.any((None, None, UNSET))) if b.share and self.chance(0.7) else "null"
        return b.term(t, pick(t, self.rng))

    def done(self, b, text, t=None, index=None, tags=(), stamp=None, **more):
        text = text.replace(" ", self.gap(), 1) + self.any(("", "", "", ";", " ;", " -- end", " /**/"))
        return Piece(
            text, b.values, b.names, set(tags), self.touch(t, index) if t and index is not None else set(), stamp, **more
        )

    def columns(self, t):
        """Some of the columns; lists only when they are asked for."""
        all_ = [c for c in t.columns if "list" in self.tags or not is_list(c[1])]
        return self.rng.sample(all_, self.rng.randrange(0, min(len(all_), 5) + 1)) if all_ else []

    def list_tags(self, columns):
        return {"list"} if any(is_list(k) for _, k in columns) else set()

    # ---- forms

    def insert(self, policy=None, batch=False):
        conditional = policy is None and "lwt" in self.tags and self.chance(0.15)
        t = self.table("lwt" if conditional else None)
        index = self.index((SERVER,) if conditional else (CLIENT, SERVER, MIXED) if policy is None else (policy,))
        b, columns = self.binder(batch), self.columns(t)
        values = [b.term(k, v) for (_, k), v in zip(t.partition, self.partition(t, index))]
        names = [c for c, _ in t.partition]
        # A static column alone needs no row.
        if not (t.static and self.chance(0.2) and all(c in t.static for c in columns) and columns):
            values += [b.term(k, self.near_value(k)) for _, k in t.clustering]
            names += [c for c, _ in t.clustering]
        values += [self.value(b, k) for _, k in columns]
        names += [c for c, _ in columns]
        text = f"{self.word('INSERT')} INTO {self.ref(t)} ({', '.join(names)}) {self.word('VALUES')} ({', '.join(values)})"
        if conditional:
            using, stamp = self.using(b, SERVER)
            return self.done(b, text + " IF NOT EXISTS" + using, t, index, {"lwt"} | self.list_tags(columns))
        using, stamp = self.using(b, index % 3, flag=not batch)
        return self.done(b, text + using, t, index, self.list_tags(columns), stamp)

    def json(self, policy=None, batch=False):
        t = self.table("json")
        index = self.index((CLIENT, SERVER, MIXED) if policy is None else (policy,))
        b, columns = self.binder(batch), self.columns(t)
        cells = [(c, k, v) for (c, k), v in zip(t.partition, self.partition(t, index))]
        cells += [(c, k, self.near_value(k)) for c, k in t.clustering]
        cells += [(c, k, None if self.chance(0.1) else pick(k, self.rng)) for c, k in columns]
        self.rng.shuffle(cells)
        document = "{" + ", ".join(f"{json_name(c)}: {cqlvalues.json(k, v)}" for c, k, v in cells) + "}"
        default = self.any(("", "", " DEFAULT NULL", " DEFAULT UNSET"))
        text = f"{self.word('INSERT')} INTO {self.ref(t)} {self.word('JSON')} {b.term('text', document)}{default}"
        using, stamp = self.using(b, index % 3, flag=not batch)
        # A list can be in a document only where a bracket is; in a batch nobody looks whose bracket it is.
        bracket = batch or "[" in document or any(b"[" in v for v in b.values)
        return self.done(b, text + using, t, index, {"list"} if bracket else (), stamp)

    @staticmethod
    def element(b, t):
        """The term in x[…], and its tags: an integer may be a key or an index, a marker with a name as well."""
        term = b.term(t, pick(t, b.rng))
        return term, {"untyped"} if term == "?" else {"undecided"} if term[0] == ":" or t == "int" else set()

    def assignment(self, b, c, t):
        """One SET of a column, and its tags."""
        if "list" not in self.tags and is_list(t):
            return None
        change = self.chance(0.7)
        if is_multicell(t, "set") and change:
            op, v = self.any("+-"), pick(t, self.rng)
            head, term = self.any((f"{c} {op}= ", f"{c} = {c} {op} ", f"{c} = {c} {op} ")), b.term(t, v)
            return head + term, {"untyped"} if term[0] in "?:" else set()
        if is_multicell(t, "map") and change:
            how = self.rng.randrange(3)
            if how == 0:
                key, tags = self.element(b, t[1])
                return f"{c}[{key}] = {self.value(b, t[2])}", tags
            keys = ("set", t[1]) if how == 1 else t
            term = b.term(keys, pick(keys, self.rng))
            return f"{c} = {c} {'-' if how == 1 else '+'} {term}", {"untyped"} if term[0] in "?:" else set()
        if is_multicell(t, "list") and change:
            how, v = self.rng.randrange(5), pick(t, self.rng)
            if how == 0:
                return f"{c}[{b.term('int', self.rng.randrange(2))}] = {self.value(b, t[1])}", {"list"}
            term = b.term(t, v)
            return (f"{c} = {c} + {term}", f"{c} = {term} + {c}", f"{c} = {c} - {term}", f"{c} += {term}")[how - 1], {"list"}
        if is_multicell(t, "udt") and change:
            f, k = self.any(t[2])
            return f"{c}.{f} = {self.value(b, k)}", set()
        return f"{c} = {self.value(b, t)}", {"list"} if is_list(t) else set()

    def condition(self, b, t):
        """IF of an UPDATE or DELETE: on values that are often there, and often not."""
        if self.chance(0.25):
            return " IF EXISTS"
        c, k = self.any([x for x in t.columns if "list" in self.tags or not is_list(x[1])])
        if self.chance(0.25):
            return f" IF {c} {self.any(('=', '!='))} null"
        if is_multicell(k, "map") and self.chance(0.5):
            return f" IF {c}[{b.term(k[1], pick(k[1], self.rng))}] = {self.value(b, k[2])}"
        if k in ("int", "bigint") and self.chance(0.5):
            return f" IF {c} {self.any(('>', '<=', '!=', '<'))} {b.term(k, pick(k, self.rng))}"
        if not isinstance(k, str):
            return f" IF {c} = {b.term(k, pick(k, self.rng))}"
        return f" IF {c} IN ({b.term(k, pick(k, self.rng))}, {b.term(k, pick(k, self.rng))})"

    def update(self, policy=None, batch=False):
        conditional = policy is None and "lwt" in self.tags and self.chance(0.15)
        t = self.table("lwt" if conditional else None)
        index = self.index((SERVER,) if conditional else (CLIENT, SERVER, MIXED) if policy is None else (policy,))
        b, tags, sets = self.binder(batch), set(), []
        using, stamp = ("", None) if conditional else self.using(b, index % 3, flag=not batch)
        static = t.static and self.chance(0.3)
        pool = t.static if static else t.regular
        for c, k in self.rng.sample(pool, self.rng.randrange(1, min(len(pool), 3) + 1)):
            s = self.assignment(b, c, k)
            if s:
                sets.append(s[0])
                tags |= s[1]
        if not sets:
            return None
        where = self.where(b, t, index, rows=not static)
        if not static and not batch and not conditional and self.chance(0.1) and t.clustering:
            c, k = t.clustering[-1]
            where = (
                self.where(b, t, index, len(t.clustering) - 1)
                + f" AND {c} IN ({b.term(k, self.near_value(k))}, {b.term(k, self.near_value(k))})"
            )
        text = f"{self.word('UPDATE')} {self.ref(t)}{using} {self.word('SET')} {', '.join(sets)} {self.word('WHERE')} {where}"
        if conditional:
            text += self.condition(b, t)
            tags.add("lwt")
        return self.done(b, text, t, index, tags, stamp)

    def delete(self, policy=None, batch=False):
        conditional = policy is None and "lwt" in self.tags and self.chance(0.15)
        t = self.table("lwt" if conditional else None)
        index = self.index((SERVER,) if conditional else (CLIENT, SERVER, MIXED) if policy is None else (policy,))
        b, what, tags = self.binder(batch), [], set()
        if t.regular and self.chance(0.5):
            for c, k in self.rng.sample(t.regular, self.rng.randrange(1, min(2, len(t.regular)) + 1)):
                if is_multicell(k, "map") and self.chance(0.6):
                    key, more = self.element(b, k[1])
                    what.append(f"{c}[{key}]")
                    tags |= more
                elif is_multicell(k, "list") and "list" in self.tags and self.chance(0.6):
                    what.append(f"{c}[{b.term('int', self.rng.randrange(2))}]")
                    tags.add("list")
                elif is_multicell(k, "udt") and self.chance(0.6):
                    what.append(f"{c}.{self.any(k[2])[0]}")
                else:
                    what.append(c)
        using, stamp = ("", None) if conditional else self.using(b, index % 3, ttl=False, flag=not batch)
        n = len(t.clustering)
        how = 0 if what or conditional or not n else self.any((0, 0, 0, 0, 1, 2, 3, 4))
        touches = self.touch(t, index)
        if not n and not what and not conditional and self.chance(0.3):
            other, (c, k) = self.index((index % 3,)), t.partition[0]
            where = f"{c} IN ({', '.join(b.term(k, self.partition(t, i)[0]) for i in (index, other))})"
            touches |= self.touch(t, other)
        elif how == 0:
            where = self.where(b, t, index)
        elif how == 1:
            where = self.where(b, t, index, 0)
        elif how == 2:
            where = self.where(b, t, index, n - 1)
        elif how == 3:
            c, k = t.clustering[0]
            low, high = sorted((self.near_value(k), self.near_value(k)), key=str if k == "text" else None)
            where = self.where(b, t, index, 0) + f" AND {c} {self.any(('>', '>='))} {b.term(k, low)}"
            if self.chance(0.6):
                where += f" AND {c} {self.any(('<', '<='))} {b.term(k, high)}"
        else:
            c, k = t.clustering[0]
            where = self.where(b, t, index, 0) + f" AND {c} IN ({b.term(k, self.near_value(k))}, {b.term(k, self.near_value(k))})"
        head = f"{self.word('DELETE')} {', '.join(what) + ' ' if what else ''}{self.word('FROM')}"
        text = f"{head} {self.ref(t)}{using} {self.word('WHERE')} {where}"
        if conditional:
            text += self.condition(b, t)
            tags.add("lwt")
        piece = self.done(b, text, t, index, tags, stamp)
        piece.touches = touches
        return piece

    def counter(self, policy=None, batch=False):
        if "counter" not in self.tags:
            return None
        t = self.by_name["counts"]
        index, b, sets = self.index(), self.binder(batch), []
        if not batch and self.chance(0.1):
            text = f"DELETE FROM {self.ref(t)} WHERE {self.where(b, t, 0, self.any((0, 1)))}"
            return self.done(b, text, t, 0, {"counter"})
        for c, _ in self.rng.sample(t.regular, self.any((1, 1, 2))):
            n = b.term("bigint", self.rng.randrange(-5, 100))
            sets.append(self.any((f"{c} = {c} + {n}", f"{c} = {c} - {n}", f"{c} += {n}", f"{c} -= {n}")))
        # Key 0 is for what deletes: a counter cannot be counted on once it was deleted.
        text = f"{self.word('UPDATE')} {self.ref(t)} SET {', '.join(sets)} WHERE {self.where(b, t, 1 + index % (KEYS - 1))}"
        return self.done(b, text, t, 1 + index % (KEYS - 1), {"counter"})

    NOW = {
        "timeuuid": ("now()", "NOW( )", "currentTimeUUID()", "current_timeuuid()", "now/* x */()"),
        "uuid": ("uuid()", "UUID()", "now()"),
        "timestamp": (
            "currentTimestamp()",
            "toTimestamp(now())",
            "current_timestamp()",
            "to_timestamp(now())",
            "toTimestamp(currentDate())",
            "toTimestamp(minTimeuuid(toTimestamp(now())))",
            "'now'",
            "$$NOW$$",
        ),
        "date": ("currentDate()", "toDate(now())", "current_date()", "to_date(current_timestamp())"),
        "time": ("currentTime()", "current_time()"),
        "bigint": (
            "toUnixTimestamp(now())",
            "to_unix_timestamp(currentTimestamp())",
            "blobAsBigint(timestampAsBlob(currentTimestamp()))",
        ),
        "blob": ("uuidAsBlob(uuid())", "timeuuidAsBlob(now())", "timeuuid_as_blob(currentTimeUUID())"),
    }
    FIXED = {
        "bigint": ("blobAsBigint(0x0000000000000007)", "(bigint)5"),
        "blob": ("intAsBlob(7)", "textAsBlob('now()')"),
        "timestamp": ("toTimestamp('2020-01-02')", "'2020-01-02'"),
        "date": ("toDate(50554f10-a11b-11ea-bb37-0242ac130002)",),
    }

    def call(self, b, t):
        if isinstance(t, str):
            return self.any(self.NOW[t])
        if t[0] == "map":
            return "{" + f"{b.term(t[1], pick(t[1], self.rng))}: {self.any(self.NOW[t[2]])}" + "}"
        if t[0] == "set":
            return "{" + ", ".join(self.any(("uuid()", "now()")) for _ in range(self.any((1, 2)))) + "}"
        return f"(uuid(), {b.term('int', 5)})"

    def function(self, policy=None, batch=False):
        b = self.binder(batch)
        if policy is None and self.chance(0.15):  # functions whose value is fixed need nothing special
            t = self.by_name["moments"]
            index, c = self.index(), self.any(sorted(self.FIXED))
            column = next(n for n, k in t.regular if k == c)
            b = Binder(self.rng, 0)
            using, stamp = self.using(b, index % 3, ttl=False)
            text = f"UPDATE {self.ref(t)}{using} SET {column} = {self.any(self.FIXED[c])} WHERE {self.where(b, t, index)}"
            return self.done(b, text, t, index, (), stamp, loose=True)
        if "function" not in self.tags:
            return None
        if self.chance(0.3):
            t = self.by_name["stream"]
            index = self.index((SERVER,) if policy is None else (policy,))
            if not batch and self.chance(0.2):
                until = f"t {self.any(('<', '<='))} {self.any(('now()', 'maxTimeuuid(0)'))}"
                text = f"DELETE FROM {self.ref(t)} WHERE p = {b.term('int', index)} AND {until}"
                return self.done(b, text, t, index, {"function"}, loose=True)
            values = f"{b.term('int', index)}, {self.any(self.NOW['timeuuid'])}, {b.term('text', pick('text', self.rng))}"
            text = f"INSERT INTO {self.ref(t)} (p, t, v) VALUES ({values})"
            using, stamp = self.using(b, index % 3, flag=not batch)
            return self.done(b, text + using, t, index, {"function"}, stamp, loose=True)
        t = self.by_name["moments"]
        index = self.index((CLIENT, SERVER, MIXED) if policy is None else (policy,))
        chosen = self.rng.sample(t.regular, self.rng.randrange(1, 4))
        if self.chance(0.5):
            values = [b.term("int", index)] + [self.call(b, k) if self.chance(0.8) else self.value(b, k) for _, k in chosen]
            text = f"INSERT INTO {self.ref(t)} (id, {', '.join(c for c, _ in chosen)}) VALUES ({', '.join(values)})"
            using, stamp = self.using(b, index % 3, flag=not batch)
            return self.done(b, text + using, t, index, {"function"}, stamp, loose=True)
        using, stamp = self.using(b, index % 3, flag=not batch)
        sets = [
            f"{c} = {self.call(b, k)}" if self.chance(0.5) or not is_multicell(k, "set") else f"{c} = {c} + {self.call(b, k)}"
            for c, k in chosen
        ]
        text = f"UPDATE {self.ref(t)}{using} SET {', '.join(sets)} WHERE {self.where(b, t, index)}"
        return self.done(b, text, t, index, {"function"}, stamp, loose=True)

    def select(self):
        t, b = self.any(self.tables), self.binder()
        index, loose = self.index(), "functions" in t.kinds
        what = self.any(
            (
                "*",
                "*",
                "JSON *",
                "count(*)",
                ", ".join(c for c, _ in t.key),
                ", ".join(c for c, _ in self.rng.sample(t.columns, 1)),
            )
        )
        if t.table == "indexed" and self.chance(0.3):
            text = f"SELECT * FROM {self.ref(t)} WHERE n = {b.term('int', self.any((0, 1, -1)))}"
        elif t.table == "indexed" and self.chance(0.3):
            text = f"SELECT id, note FROM {KS}.by_city WHERE city = {b.term('ascii', pick('ascii', self.rng))}"
        elif self.chance(0.15):
            text = f"SELECT {what} FROM {self.ref(t)} LIMIT {b.term('int', 100)}"
        else:
            n = self.rng.randrange(len(t.clustering) + 1)
            text = f"SELECT {what} FROM {self.ref(t)} WHERE {self.where(b, t, index, n)}"
            if n == 0 and t.clustering and self.chance(0.4):
                text += f" ORDER BY {t.clustering[0][0]} {self.any(('ASC', 'DESC'))}"
        return self.done(b, text, loose=loose, write=False)

    def text_batch(self):
        policy = self.any((CLIENT, SERVER, MIXED))
        b_kind, clause, makers = self.any(("", "", "UNLOGGED ")), "", (self.insert, self.update, self.delete, self.json)
        pieces = []
        if "counter" in self.tags and self.chance(0.2):
            b_kind, pieces = "COUNTER ", [self.counter(None, True) for _ in range(self.any((1, 2, 3)))]
        elif "lwt" in self.tags and policy == SERVER and self.chance(0.15):
            return self.conditional_batch(policy)
        else:
            makers += (self.function,) if "function" in self.tags else ()
            # A clause for the whole batch forbids one in its statements.
            self.stamped = policy == CLIENT and self.chance(0.5)
            clause = f" USING TIMESTAMP {self.ticks()}" if self.stamped else ""
            for _ in range(self.any((1, 2, 3, 5))):
                p = self.any(makers)(policy, True)
                pieces += [p] if p else []
            self.stamped = False
        values = [v for p in pieces for v in p.values]
        body = "".join(" " + strip(p.text) + ";" for p in pieces)
        text = f"{self.word('BEGIN')} {b_kind}BATCH{clause}{body} {self.word('APPLY')} BATCH" + self.any(("", ";"))
        return merged(text, values, pieces)

    def conditional_batch(self, policy):
        """Several rows of one partition, one condition."""
        t = self.by_name["wide"]
        index, pieces, conditions = self.index((policy,)), [], 0
        for _ in range(self.any((1, 2, 3))):
            b = self.binder(True)
            sets = f"n = {self.value(b, 'int')}, v = {self.value(b, 'text')}"
            text = f"UPDATE {self.ref(t)} SET {sets} WHERE {self.where(b, t, index)}"
            if conditions == 0 or self.chance(0.3):
                text += self.any((" IF EXISTS", f" IF n != {b.term('int', pick('int', self.rng))}", " IF v = null"))
                conditions += 1
            pieces.append(self.done(b, text, t, index, {"lwt"}))
        values = [v for p in pieces for v in p.values]
        return merged("BEGIN BATCH" + "".join(" " + strip(p.text) + ";" for p in pieces) + " APPLY BATCH", values, pieces)

    def broken(self):
        if self.chance(0.15):  # a value that does not fit its type, or a wrong number of values
            values = self.any(([b"\0\0\0"], [b"\0\0\0\1", b"\0"], [b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"], [None, b"\0\0\0\1"]))
            return Piece(f"INSERT INTO {KS}.scalars (id, c_int) VALUES (?, ?)", values)
        if self.chance(0.05):
            return Piece(f"UPDATE {KS}.scalars SET c_int = ? WHERE id = ?", [b"\0\0\0\1", UNSET])
        if self.chance(0.1):
            return Piece(f"INSERT INTO {KS}.name (id, name) VALUES (?, ?)", [b"\0\0\0\1", b"\xff\xfe"])
        if self.chance(0.1):
            return Piece(f'INSERT INTO {KS}."Case" ("Key", "select") VALUES (?, ?)', [b"k" * 70000, b"\0\0\0\1"])
        return Piece(self.any(BROKEN).replace("§", self.any(("", f"{KS}."))))

    # ---- whole statements

    def wanted(self, p, form):
        if p is None:
            return False
        # Without types nobody can tell what a bound term is added to.
        tags = p.tags | ({"undecided"} if "untyped" in p.tags and form != "prepared" else set())
        # Nor whether what is laid out like a list is one.
        if form != "prepared" and any(like_a_list(v) for v in p.values):
            tags = tags | {"list"}
        return tags - {"untyped"} <= self.tags

    def next(self):
        s = None
        while s is None:
            version = self.any(self.versions)
            if self.past and self.chance(0.05):
                s = self.statement("again", version, self.any(self.past))
            elif self.chance(0.07):
                s = self.batch(version)
            else:
                form, p = self.any(("simple", "prepared")), self.any(self.makers)()
                s = self.statement(form, version, p) if self.wanted(p, form) else None
        self.number += 1
        return s

    def statement(self, form, version, p):
        if UNSET in p.values and version < 4:
            version = 4
        s = Statement(
            self.number, form, version, [p], p.timestamp, self.any(("SERIAL", "LOCAL_SERIAL")) if "lwt" in p.tags else None
        )
        s.by_request = version == 5 and self.chance(0.5)
        if form == "prepared" and p.write and p.touches:
            self.past = (self.past + [p])[-40:]
        return s

    def batch(self, version):
        policy, kind = self.any((CLIENT, SERVER, MIXED)), self.any((LOGGED, UNLOGGED))
        makers, pieces = [self.insert, self.update, self.delete, self.json], []
        if "counter" in self.tags and self.chance(0.2):
            kind, makers = COUNTER, [self.counter]
        elif "function" in self.tags:
            makers.append(self.function)
        ahead = []
        for _ in range(self.any((1, 2, 3, 6))):
            p = self.any(makers)(policy, True)
            prepared = self.chance(0.5)
            if p and self.wanted(p, "prepared" if prepared else "simple"):
                pieces.append(p)
                ahead.append(prepared)
        if not pieces:
            return None
        if any(UNSET in p.values for p in pieces):
            version = max(version, 4)
        stamp = (
            self.ticks()
            if policy == CLIENT and kind != COUNTER or policy == MIXED and kind != COUNTER and self.chance(0.5)
            else None
        )
        return Statement(self.number, "batch", version, pieces, stamp, None, kind, version == 5 and self.chance(0.5), ahead)


def like_a_list(value):
    """Whether the bytes are a number and so many values with their lengths."""
    if not isinstance(value, bytes) or len(value) < 4:
        return False
    left, at = int.from_bytes(value[:4], "big", signed=True), 4
    while left > 0 and at + 4 <= len(value):
        at += 4 + max(0, int.from_bytes(value[at : at + 4], "big", signed=True))
        left -= 1
    return left == 0 and at == len(value)


def json_name(column):
    """Cassandra takes the outer quotes off and leaves those within as they are."""
    return cqlvalues.json("text", column[0] + column[1:-1].replace('""', '"') + column[-1] if column[0] == '"' else column)


def pack_key(t, values):
    return tuple(pack(k, v) for (_, k), v in zip(t.partition, values))


def strip(text):
    """A statement as a batch holds it: without its end."""
    for end in (" -- end", " ;", ";"):
        text = text.removesuffix(end)
    return text


def merged(text, values, pieces):
    return Piece(
        text,
        values,
        None,
        set().union(*(p.tags for p in pieces)),
        set().union(*(p.touches for p in pieces)),
        None,
        any(p.loose for p in pieces),
    )
