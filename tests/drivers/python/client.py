# SPDX-License-Identifier: Apache-2.0
"""The application with the Python driver: see ../README.md for what it does and says."""
import argparse
import decimal
import ipaddress
import json
import sys
import threading
import time
import uuid
from datetime import datetime

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, SimpleStatement, UNSET_VALUE
from cassandra.util import Date, Duration, Time

WRITERS, PAUSE = 3, 0.05


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what))


class Writer(threading.Thread):
    """Writes rows of its own without end, and records what it was told of each."""

    def __init__(self, number, client):
        super().__init__(daemon=True)
        self.number, self.client = number, client
        self.acknowledged = self.step = 0

    def run(self):
        client, statements = self.client, {}
        while not client.stop.wait(PAUSE):
            table = client.table
            self.step += 1
            key, value = f"{client.prefix}-{self.number}-{self.step}", f"{client.prefix} {self.number}/{self.step}"
            changes = [[table, [key], "I", {"v": value, "n": self.step}]]
            try:
                if table not in statements:
                    statements[table] = client.session.prepare(f"INSERT INTO {table} (id, v, n) VALUES (?, ?, ?)")
                client.session.execute(statements[table], (key, value, self.step))
                client.record("a", self.number, changes)
                self.acknowledged += 1
            except Exception as e:  # whatever the driver raises is an error that the application sees
                client.record("?", self.number, changes)
                client.error(e)


class Client:
    def __init__(self, args):
        self.prefix = args.prefix
        self.other = args.keyspace + "_b"
        compression = False if args.compression == "none" else args.compression
        profile = ExecutionProfile(request_timeout=20, load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy("dc1")))
        self.cluster = Cluster(args.contact.split(","), protocol_version=args.protocol, compression=compression, connect_timeout=20,
                               auth_provider=PlainTextAuthProvider(args.user, args.password), control_connection_timeout=20,
                               reconnection_policy=ConstantReconnectionPolicy(0.5, None),
                               execution_profiles={EXEC_PROFILE_DEFAULT: profile})
        self.session = self.cluster.connect(self.other)
        self.cluster.register_user_type(self.other, "place", Place)
        self.file = open(args.record, "w", encoding="utf-8")
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.errors, self.causes = 0, {}
        self.table = f"{self.other}.early"
        self.statements, self.open_page, self.rounds, self.begun = {}, None, [], 0
        self.writers = [Writer(n, self) for n in range(WRITERS)]
        for w in self.writers:
            w.start()

    def record(self, what, writer, changes):
        with self.lock:
            self.file.write(json.dumps([what, writer, 0, 0, changes]) + "\n")

    def error(self, e):
        with self.lock:
            self.errors += 1
            text = f"{type(e).__name__}: {e}"[:160]
            self.causes[text] = self.causes.get(text, 0) + 1

    def count(self):
        """Every writer gets two more answers, so that one of them was asked for after this was called; for 20 s."""
        goals, end = [w.acknowledged + 2 for w in self.writers], time.time() + 20
        while any(w.acknowledged < g for w, g in zip(self.writers, goals)) and time.time() < end:
            time.sleep(0.02)
        with self.lock:
            answer = {"acknowledged": sum(w.acknowledged for w in self.writers), "errors": self.errors, "causes": self.causes}
            self.errors, self.causes = 0, {}
            self.file.flush()
        return answer

    def prepare(self, text):
        if text not in self.statements:
            self.statements[text] = self.session.prepare(text)
        return self.statements[text]

    def do(self, text, *values):
        return self.session.execute(self.prepare(text), values) if "?" in text else self.session.execute(text, values or None)

    def one(self, text, *values):
        rows = list(self.do(text, *values))
        return tuple(rows[0]) if rows else None

    # ---- what is tried in each round

    def simple(self, name):
        p = self.prefix
        self.do(f"INSERT INTO rows (id, v, n) VALUES ('{p}-simple', '{name}''s', 1)")
        self.do("INSERT INTO rows (id, v, n) VALUES (%s, %s, %s)", f"{p}-bound", name, 2)
        self.do(f"UPDATE rows SET n = 3 WHERE id = '{p}-simple'")
        self.do(f"DELETE v FROM rows WHERE id = '{p}-bound'")
        check(self.one(f"SELECT v, n FROM rows WHERE id = '{p}-simple'") == (f"{name}'s", 3), "not what was written")
        check(self.one(f"SELECT v, n FROM rows WHERE id = '{p}-bound'") == (None, 2), "a deleted value is there")

    def prepared(self, name):
        p = self.prefix
        self.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", f"{p}-prepared", name, self.begun)
        if self.cluster.protocol_version >= 4:
            self.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", f"{p}-prepared", UNSET_VALUE, self.begun + 1)
            check(self.one("SELECT v, n FROM rows WHERE id = ?", f"{p}-prepared") == (name, self.begun + 1), "unset value")
        new = f"r{self.begun}"
        check(self.one(f"SELECT v AS {new} FROM rows WHERE id = ?", f"{p}-prepared") == (name,), "not what was written")
        self.do("INSERT INTO rows (id, n) VALUES (?, ?)", f"{p}-gone", 1)
        self.do("DELETE FROM rows WHERE id = ?", f"{p}-gone")
        check(self.one("SELECT n FROM rows WHERE id = ?", f"{p}-gone") is None, "a deleted row is there")

    def batch(self, name):
        p, insert = self.prefix, self.prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)")
        for kind, of in ((BatchType.LOGGED, 2), (BatchType.UNLOGGED, 3)):
            batch = BatchStatement(kind)
            for i in range(of):
                batch.add(insert, (f"{p}-batch{i}", name, i))
            batch.add(SimpleStatement(f"UPDATE rows SET v = '{name}!' WHERE id = '{p}-batch{of}'"))
            self.session.execute(batch)
            for i in range(of):
                check(self.one("SELECT v, n FROM rows WHERE id = ?", f"{p}-batch{i}") == (name, i), "not what the batch wrote")
            check(self.one("SELECT v FROM rows WHERE id = ?", f"{p}-batch{of}") == (f"{name}!",), "not what the batch wrote")

    def paging(self, name):
        p, text = self.prefix, f"SELECT i FROM pages WHERE p = '{self.prefix}'"
        execute_concurrent_with_args(self.session, self.prepare("INSERT INTO pages (p, i, v) VALUES (?, ?, ?)"),
                                     [(p, i, name) for i in range(100)])
        if self.open_page:  # begun in the round before, perhaps at the other cluster
            state, seen = self.open_page
            while state:
                result = self.session.execute(SimpleStatement(text, fetch_size=17), paging_state=state)
                seen, state = seen + [r.i for r in result.current_rows], result.paging_state
            check(seen == list(range(100)), "the sequence that was open has", len(seen), "rows")
        result, pages, seen = self.session.execute(SimpleStatement(text, fetch_size=17)), 1, []
        self.open_page = result.paging_state, [r.i for r in result.current_rows]
        while True:
            seen += [r.i for r in result.current_rows]
            if not result.has_more_pages:
                break
            result.fetch_next_page()
            pages += 1
        check(seen == list(range(100)) and pages == 6, len(seen), "rows in", pages, "pages")

    def lwt(self, name):
        key = f"{self.prefix}-{name}"
        insert = "INSERT INTO lwt (id, v, n) VALUES (?, ?, ?) IF NOT EXISTS"
        check(self.one(insert, key, name, 1) == (True,), "the first is not applied")
        check(self.one(insert, key, "again", 2) == (False, key, 1, name), "the second is applied")
        for before in self.rounds:
            check(self.one(insert, f"{self.prefix}-{before}", "again", 2)[0] is False, "the row of round", before, "is not there")
        check(self.one(f"UPDATE lwt SET n = 5 WHERE id = '{key}' IF n = 4") == (False, 1), "condition n = 4")
        check(self.one(f"UPDATE lwt SET n = 5 WHERE id = '{key}' IF n = 1") == (True,), "condition n = 1")
        check(self.one("SELECT v, n FROM lwt WHERE id = ?", key) == (name, 5), "not what was written")

    def counter(self, name):
        key = f"{self.prefix}-{name}"
        for by in (1, 2, 4):
            self.do("UPDATE counts SET c = c + ? WHERE id = ?", by, key)
        batch = BatchStatement(BatchType.COUNTER)
        batch.add(self.prepare("UPDATE counts SET c = c + ? WHERE id = ?"), (8, key))
        self.session.execute(batch)
        for of in [*self.rounds, name]:
            got = self.one("SELECT c FROM counts WHERE id = ?", f"{self.prefix}-{of}")
            check(got == (15,), "the counter of round", of, "is", got)

    def types(self, name):
        n = self.begun
        values = {
            "a": "ascii", "bi": 2**62 + n, "bl": bytes(range(256)), "bo": n % 2 == 0, "da": Date("2024-02-29"),
            "de": decimal.Decimal("-123456789.000000000987654321"), "dbl": 0.1 + n, "du": Duration(13, 1, 500),
            "fl": 1.5, "ine": "fd77::1", "i": -(2**31), "si": -32768, "te": "ümläut ☃ \U0001F600", "ti": Time("13:14:15.123456789"),
            "ts": datetime(2024, 2, 29, 1, 2, 3, 4000), "tu": uuid.uuid1(), "ty": -128, "uu": uuid.uuid4(), "vi": -(3**200),
            "li": [3, 1, 2, n], "se": {"b", "a", name}, "ma": {"k": n, "l": 2}, "fr": [[1, 2], [3]],
            "tup": (n, "two", 3.0), "ud": Place("Main", n), "nest": {"x": {Place("A", 1), Place("B", n)}}, "ve": [1.0, -2.5, n + 0.25],
        }
        names = ", ".join(values)
        self.do(f"INSERT INTO kinds (id, {names}) VALUES (?{', ?' * len(values)})", self.prefix, *values.values())
        for column, got in zip(values, self.one(f"SELECT {names} FROM kinds WHERE id = ?", self.prefix)):
            want = values[column]
            if column == "ine":
                want, got = ipaddress.ip_address(want), ipaddress.ip_address(got)
            elif column == "nest":
                want, got = {k: set(v) for k, v in want.items()}, {k: set(v) for k, v in got.items()}
            elif column in ("li", "fr", "se", "ma", "ve"):
                got = type(want)(got if column != "fr" else [list(x) for x in got])
            elif column in ("tup", "ud"):
                want, got = tuple(want), tuple(got)
            check(got == want, column, "is", repr(got), "and not", repr(want))

    def functions(self, name):
        key = f"{self.prefix}-functions"
        self.do("INSERT INTO rows (id, v, at, u) VALUES (?, ?, toTimestamp(now()), now())", key, name)
        at, u = self.one("SELECT at, u FROM rows WHERE id = ?", key)
        check(abs((at - datetime.utcfromtimestamp(time.time())).total_seconds()) < 60 and u.version == 1, at, u)

    def ttl(self, name):
        key = f"{self.prefix}-ttl"
        self.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?", key, name, 1, 86400, time.time_ns() // 1000)
        left = self.one("SELECT TTL(v) FROM rows WHERE id = ?", key)[0]
        check(86300 < left <= 86400, "TTL", left)

    def large(self, name):
        body = bytes((i * i + i // 251) % 256 for i in range(1000)) * 300
        self.do("INSERT INTO big (id, b) VALUES (?, ?)", self.prefix, body)
        check(self.one("SELECT b FROM big WHERE id = ?", self.prefix) == (body,), "a value of 300 kB came back different")

    def together(self, name):
        insert, select = self.prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)"), self.prepare("SELECT n FROM rows WHERE id = ?")
        keys = [f"{self.prefix}-many{i}" for i in range(200)]
        execute_concurrent_with_args(self.session, insert, [(k, name, i) for i, k in enumerate(keys)], concurrency=200)
        got = execute_concurrent_with_args(self.session, select, [(k,) for k in keys], concurrency=200)
        check([r.result_or_exc.one().n for r in got] == list(range(200)), "answers are mixed up")

    def schema(self, name):
        table = f"made_{self.prefix}"
        tables = lambda: self.cluster.metadata.keyspaces[self.other].tables  # noqa: E731
        for statement, there in ((f"CREATE TABLE {table} (id int PRIMARY KEY)", True), (f"DROP TABLE {table}", False)):
            self.do(statement)
            end = time.time() + 20
            while (table in tables()) != there:
                check(time.time() < end, "the driver's schema does not follow", statement)
                time.sleep(0.05)

    def nodes(self, name):
        up = [h for h in self.cluster.metadata.all_hosts() if h.is_up]
        check(len(up) >= 2 or name.startswith("finish"), "nodes that are up:", up)
        connected = self.session.get_pool_state()
        check(sum(s["open_count"] > 0 for s in connected.values()) == len(up), "pools:", connected)

    FEATURES = ("simple", "prepared", "batch", "paging", "lwt", "counter", "types", "functions", "ttl", "large", "together", "schema", "nodes")

    def round(self, name):
        answer = {}
        for feature in self.FEATURES:
            try:
                answer[feature] = getattr(self, feature)(name) or "ok"
            except Exception as e:
                answer[feature] = f"failed: {type(e).__name__}: {e}"[:300]
        self.begun += 1
        if name != "observe":  # what was written then is on one cluster alone
            self.rounds.append(name)
        return {"features": answer}

    def load(self, rows):
        """So many rows in and out again, as fast as the driver goes. Those that were acknowledged, those that came back as they were."""
        p, insert = self.prefix, self.prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)")
        values = ((f"{p}-load{i}", f"load {i}", i) for i in range(int(rows)))
        done = execute_concurrent_with_args(self.session, insert, values, concurrency=128, raise_on_first_error=False, results_generator=True)
        written = sum(r.success for r in done)
        read = {r.n for r in self.session.execute(SimpleStatement("SELECT id, v, n FROM rows", fetch_size=5000))
                if (r.id, r.v) == (f"{p}-load{r.n}", f"load {r.n}")}
        return {"written": written, "read": len(read)}

    def move(self, table):
        self.table = table
        return self.count()


class Place(tuple):
    """The user type place(street text, number int)."""

    def __new__(cls, street, number):
        return super().__new__(cls, (street, number))

    street = property(lambda self: self[0])
    number = property(lambda self: self[1])


def main():
    p = argparse.ArgumentParser()
    for name in ("contact", "user", "password", "keyspace", "record", "prefix", "compression"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--protocol", type=int, required=True)
    client = Client(p.parse_args())
    print(json.dumps({"protocol": client.cluster.protocol_version}), flush=True)
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        answer = {"round": client.round, "table": client.move, "load": client.load}[word](rest) if rest else client.count()
        print(json.dumps(answer), flush=True)
    client.stop.set()
    for w in client.writers:
        w.join(30)
    client.file.close()
    client.cluster.shutdown()


main()
