# SPDX-License-Identifier: Apache-2.0
"""The load that the tests and the demo write: schema, statements, and what a row must hold afterwards.

Each writer owns its rows (their keys carry its number) and waits for each answer before the next statement, so the
final state of every row follows from its acknowledged statements in order, whatever the clusters' clocks said.

An operation is (kind, changes); a change is (table, key, verb, columns), verb one of
  I  INSERT: row marker and the given columns        U  UPDATE: the given columns (None = that column is deleted)
  D  DELETE of the row

A plan has a mode, which a running application can be told to change:
  all    every kind of statement
  beat   only whole rows that it writes again and again: before the mirror runs, so that nothing it wrote then stays
  later  only new rows of the table `later`: after the end of the reverse mirror, when only the target has them
"""
import random
import time

TABLES = {
    "items": ("id text PRIMARY KEY, v text, n int, note text, tags set<text>", ("id",)),
    "later": ("id text PRIMARY KEY, v text, n int", ("id",)),
    "events": ("w int, i int, v text, level text static, n bigint, PRIMARY KEY (w, i)", ("w", "i")),
}


def second_keyspace(keyspace):
    return keyspace + "_b"


def schema(keyspace, replication=1):
    """The statements that make both keyspaces, for a person to run on each cluster before a migration."""
    out = []
    for ks in (keyspace, second_keyspace(keyspace)):
        out.append(
            f"CREATE KEYSPACE IF NOT EXISTS {ks} WITH replication = "
            f"{{'class': 'SimpleStrategy', 'replication_factor': {replication}}}"
        )
        for table, (columns, _) in TABLES.items():
            out.append(f"CREATE TABLE IF NOT EXISTS {ks}.{table} ({columns})")
    return out


def text(value):
    """A CQL literal."""
    if value is None:
        return "null"
    if isinstance(value, (set, list)):
        return "{" + ", ".join(sorted(text(x) for x in value)) + "}"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"


class Plan:
    """The endless list of operations of one writer; the same for the same arguments."""

    KINDS = (
        ("insert", 5), ("insert_prepared", 6), ("update", 3), ("update_prepared", 4), ("delete", 1),
        ("delete_prepared", 1), ("delete_column", 1), ("batch", 2), ("batch_text", 2), ("event", 3),
        ("event_static", 1), ("insert_ttl", 1), ("insert_timestamp", 1), ("request_keyspace", 1),
    )

    def __init__(self, prefix, writer, keyspace, seed=1, kinds=None, size=0):
        self.prefix, self.writer, self.keyspace = prefix, writer, keyspace
        self.random = random.Random(f"{seed}/{prefix}/{writer}")
        self.step = self.beats = 0
        self.mode = "all"
        self.live = []  # keys of rows that later statements may touch
        self.filler = "x" * size
        chosen = [(k, n) for k, n in self.KINDS if kinds is None or k in kinds]
        self.kinds = [k for k, n in chosen for _ in range(n)]
        if not self.kinds:
            raise ValueError("no kind of operation is left")

    def forget(self, changes):
        """Nothing more is written to these rows: of an unanswered operation it stays open which state they are in."""
        for _, key, _, _ in changes:
            if key[0] in self.live:
                self.live.remove(key[0])

    def value(self):
        # Words that a naive reader of CQL trips over.
        odd = ("", " -- no comment", " ; USE other;", " $$ BEGIN BATCH $$", " it''s", " /* now() */", " ümläut ☃")
        return f"{self.prefix} {self.writer}/{self.step}{self.random.choice(odd)}{self.filler}"

    def fresh(self, keep=True):
        key = f"{self.prefix}-{self.writer}-{self.step}"
        if keep:
            self.live.append(key)
            if len(self.live) > 200:
                self.live.pop(self.random.randrange(100))
        return key

    def next(self):
        """(kind, changes) of the next operation."""
        self.step += 1
        if self.mode == "later":
            return "insert_prepared", [(f"{self.keyspace}.later", [self.fresh(False)], "I", {"v": self.value(), "n": self.step})]
        # Five rows that are written over and over; in mode `all` as well, until what `beat` wrote is covered.
        if self.mode == "beat" or self.beats > 0:
            self.beats = 5 if self.mode == "beat" else self.beats - 1
            row = {"v": self.value(), "n": self.step, "note": "beat", "tags": [f"b{self.step}"]}
            key = f"{self.prefix}-{self.writer}-beat{self.step % 5}"
            return ("insert", "insert_prepared")[self.step % 2], [(f"{self.keyspace}.items", [key], "I", row)]
        kind = self.random.choice(self.kinds)
        table = f"{self.keyspace}.items"
        if kind in ("update", "update_prepared", "delete", "delete_prepared", "delete_column", "batch", "batch_text"):
            if not self.live:
                kind = "insert_prepared" if "insert_prepared" in self.kinds else "insert"
        if kind in ("insert", "insert_prepared", "request_keyspace"):
            row = {"v": self.value(), "n": self.step, "note": f"note {self.step}", "tags": ["a", f"t{self.step % 7}"]}
            return kind, [(table, [self.fresh()], "I", row)]
        if kind in ("insert_ttl", "insert_timestamp"):
            return kind, [(table, [self.fresh(keep=False)], "I", {"v": self.value(), "n": self.step})]
        if kind in ("update", "update_prepared"):
            return kind, [(table, [self.random.choice(self.live)], "U", {"v": self.value(), "n": self.step})]
        if kind == "delete_column":
            return kind, [(table, [self.random.choice(self.live)], "U", {"note": None})]
        if kind in ("delete", "delete_prepared"):
            return kind, [(table, [self.live.pop(self.random.randrange(len(self.live)))], "D", {})]
        event = (f"{self.keyspace}.events", [self.event_partition(), self.step], "I", {"v": self.value(), "n": self.step})
        if kind == "event":
            return kind, [event]
        if kind == "event_static":
            return kind, [(f"{self.keyspace}.events", [self.event_partition(), self.step], "I",
                           {"level": f"level {self.step}", "v": self.value()})]
        update = (table, [self.random.choice(self.live)], "U", {"n": self.step})
        insert = (table, [self.fresh()], "I", {"v": self.value(), "n": self.step, "note": None, "tags": ["b"]})
        return kind, [insert, update, event]

    def event_partition(self):
        # A partition for each writer and prefix: a static column belongs to the whole partition.
        return self.writer * 1000 + sum(self.prefix.encode()) % 1000


def statement(change, suffix=""):
    """The change as text, unqualified: the session's keyspace has to do."""
    table, key, verb, columns = change
    table = table.split(".")[1]
    names = TABLES[table][1]
    where = " AND ".join(f"{n} = {text(k)}" for n, k in zip(names, key))
    if verb == "I":
        all_names = list(names) + list(columns)
        values = ", ".join(text(v) for v in list(key) + list(columns.values()))
        return f"INSERT INTO {table} ({', '.join(all_names)}) VALUES ({values}){suffix}"
    if verb == "U":
        return f"UPDATE {table} SET {', '.join(f'{c} = {text(v)}' for c, v in columns.items())} WHERE {where}"
    return f"DELETE FROM {table} WHERE {where}"


def prepared(change):
    """(text with markers, values) of the change."""
    table, key, verb, columns = change
    table = table.split(".")[1]
    names = TABLES[table][1]
    where = " AND ".join(f"{n} = ?" for n in names)
    values = [set(v) if isinstance(v, list) else v for v in columns.values()]
    if verb == "I":
        all_names = list(names) + list(columns)
        return f"INSERT INTO {table} ({', '.join(all_names)}) VALUES ({', '.join('?' * len(all_names))})", list(key) + values
    if verb == "U":
        return f"UPDATE {table} SET {', '.join(c + ' = ?' for c in columns)} WHERE {where}", values + list(key)
    return f"DELETE FROM {table} WHERE {where}", list(key)


def now_micros():
    return time.time_ns() // 1000


def after(state, verb, columns):
    """A row's state after a change; None: there is no such row."""
    if verb == "D":
        return None
    return {**(state or {}), **{c: sorted(v) if isinstance(v, list) else v for c, v in columns.items()}}


class Expected:
    """What the operations leave behind. Each row has the states that it may be in: one, unless operations on it went
    unanswered; each of those has happened or not."""

    def __init__(self):
        self.rows = {}     # (table, key) -> possible states
        self.statics = {}  # (table, partition) -> possible states
        self.doubtful = set()
        self.acknowledged = 0

    def apply(self, changes):
        self.acknowledged += 1
        self.change(changes, True)

    def doubt(self, changes):
        self.change(changes, False)

    def change(self, changes, certain):
        for table, key, verb, columns in changes:
            columns = dict(columns)
            if table.endswith(".events") and "level" in columns:
                static = {"level": columns.pop("level")}
                self.put(self.statics, (table, (key[0],)), {"level": None}, "U", static, certain)
            self.put(self.rows, (table, tuple(key)), None, verb, columns, certain)

    def put(self, where, at, before, verb, columns, certain):
        old = where.get(at, [before])
        states = [after(s, verb, columns) for s in old]
        if not certain:
            self.doubtful.add(at)
            states = old + states
        where[at] = [s for i, s in enumerate(states) if s not in states[:i]]
