# SPDX-License-Identifier: Apache-2.0
"""The application with the C++ driver, by its binding for Python: see ../README.md for what it does and says."""
import argparse
import asyncio
import json
import sys
import time
import uuid
from datetime import date, datetime, timezone
from datetime import time as time_of_day
from decimal import Decimal

import acsylla

WRITERS, PAUSE = 3, 0.05


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what))


class Client:
    def __init__(self, args, session):
        self.prefix, self.other, self.protocol, self.session = args.prefix, args.keyspace + "_b", args.protocol, session
        self.file = open(args.record, "w", encoding="utf-8")
        self.errors, self.causes, self.stop = 0, {}, False
        self.acknowledged = [0] * WRITERS
        self.table = f"{self.other}.early"
        self.statements, self.open_page, self.rounds, self.begun = {}, None, [], 0

    async def write(self, number):
        """Writes rows of its own without end, and records what it was told of each."""
        step = 0
        while not self.stop:
            await asyncio.sleep(PAUSE)
            table, step = self.table, step + 1
            key, value = f"{self.prefix}-{number}-{step}", f"{self.prefix} {number}/{step}"
            try:
                await self.do(f"INSERT INTO {table} (id, v, n) VALUES (?, ?, ?)", key, value, step)
                what = "a"
                self.acknowledged[number] += 1
            except Exception as e:  # whatever the driver raises is an error that the application sees
                what, text = "?", f"{type(e).__name__}: {e}"[:160]
                self.errors += 1
                self.causes[text] = self.causes.get(text, 0) + 1
            self.file.write(json.dumps([what, number, 0, 0, [[table, [key], "I", {"v": value, "n": step}]]]) + "\n")

    async def count(self):
        """Every writer gets two more answers, so that one of them was asked for after this was called; for 20 s."""
        goals, end = [a + 2 for a in self.acknowledged], time.time() + 20
        while any(a < g for a, g in zip(self.acknowledged, goals)) and time.time() < end:
            await asyncio.sleep(0.02)
        answer = {"acknowledged": sum(self.acknowledged), "errors": self.errors, "causes": self.causes}
        self.errors, self.causes = 0, {}
        self.file.flush()
        return answer

    async def bind(self, text, *values, **more):
        """A statement: prepared where there are values, else as text."""
        if "?" not in text:
            return acsylla.create_statement(text, native_types=True, **more)
        if text not in self.statements:
            self.statements[text] = await self.session.create_prepared(text)
        statement = self.statements[text].bind(**more)
        for i, value in enumerate(values):
            statement.bind(i, value)
        return statement

    async def do(self, text, *values, **more):
        return await self.session.execute(await self.bind(text, *values, **more))

    async def one(self, text, *values):
        row = (await self.do(text, *values)).first()
        return None if row is None else tuple(row.as_list())

    # ---- what is tried in each round

    async def simple(self, name):
        p = self.prefix
        await self.do(f"INSERT INTO rows (id, v, n) VALUES ('{p}-simple', '{name}''s', 1)")
        statement = acsylla.create_statement("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", parameters=3)
        statement.bind_list([f"{p}-bound", name, 2])
        await self.session.execute(statement)
        await self.do(f"UPDATE rows SET n = 3 WHERE id = '{p}-simple'")
        await self.do(f"DELETE v FROM rows WHERE id = '{p}-bound'")
        check(await self.one(f"SELECT v, n FROM rows WHERE id = '{p}-simple'") == (f"{name}'s", 3), "not what was written")
        check(await self.one(f"SELECT v, n FROM rows WHERE id = '{p}-bound'") == (None, 2), "a deleted value is there")

    async def prepared(self, name):
        key, insert = f"{self.prefix}-prepared", "INSERT INTO rows (id, v, n) VALUES (?, ?, ?)"
        await self.do(insert, key, name, self.begun)
        if self.protocol >= 4:  # what is not bound is not set
            statement = await self.bind(insert, key)
            statement.bind(2, self.begun + 1)
            await self.session.execute(statement)
            check(await self.one("SELECT v, n FROM rows WHERE id = ?", key) == (name, self.begun + 1), "unset value")
        check(await self.one(f"SELECT v AS r{self.begun} FROM rows WHERE id = ?", key) == (name,), "not what was written")
        await self.do("INSERT INTO rows (id, n) VALUES (?, ?)", f"{self.prefix}-gone", 1)
        await self.do("DELETE FROM rows WHERE id = ?", f"{self.prefix}-gone")
        check(await self.one("SELECT n FROM rows WHERE id = ?", f"{self.prefix}-gone") is None, "a deleted row is there")

    async def batch(self, name):
        p, insert = self.prefix, "INSERT INTO rows (id, v, n) VALUES (?, ?, ?)"
        for batch, of in ((acsylla.create_batch_logged(), 2), (acsylla.create_batch_unlogged(), 3)):
            for i in range(of):
                batch.add_statement(await self.bind(insert, f"{p}-batch{i}", name, i))
            batch.add_statement(await self.bind(f"UPDATE rows SET v = '{name}!' WHERE id = '{p}-batch{of}'"))
            await self.session.execute_batch(batch)
            for i in range(of + 1):
                check(await self.one("SELECT v FROM rows WHERE id = ?", f"{p}-batch{i}") == (name if i < of else f"{name}!",), "batch", i)

    async def pages(self, state, most=100):
        """Rows, how many pages, and the state behind them."""
        seen, pages = [], 0
        while True:
            more = {"page_state": state} if state else {}
            result = await self.do("SELECT i FROM pages WHERE p = ?", self.prefix, page_size=17, **more)
            seen, pages = seen + [row.as_list()[0] for row in result], pages + 1
            state = result.page_state() if result.has_more_pages() else None
            if not state or pages == most:
                return seen, pages, state

    async def paging(self, name):
        for i in range(100):
            await self.do("INSERT INTO pages (p, i, v) VALUES (?, ?, ?)", self.prefix, i, name)
        if self.open_page:  # begun in the round before, perhaps at the other cluster
            seen = self.open_page[0] + (await self.pages(self.open_page[2]))[0]
            check(seen == list(range(100)), "the sequence that was open has", len(seen), "rows")
        self.open_page = await self.pages(None, 1)
        seen, pages, _ = await self.pages(None)
        check(seen == list(range(100)) and pages == 6, len(seen), "rows in", pages, "pages")

    async def lwt(self, name):
        key, insert = f"{self.prefix}-{name}", "INSERT INTO lwt (id, v, n) VALUES (?, ?, ?) IF NOT EXISTS"
        check((await self.one(insert, key, name, 1))[0] is True, "the first is not applied")
        check(await self.one(insert, key, "again", 2) == (False, key, 1, name), "the second is applied")
        for before in self.rounds:
            check((await self.one(insert, f"{self.prefix}-{before}", "again", 2))[0] is False, "the row of round", before, "is not there")
        check(await self.one(f"UPDATE lwt SET n = 5 WHERE id = '{key}' IF n = 4") == (False, 1), "condition n = 4")
        check(await self.one(f"UPDATE lwt SET n = 5 WHERE id = '{key}' IF n = 1") == (True,), "condition n = 1")
        check(await self.one("SELECT v, n FROM lwt WHERE id = ?", key) == (name, 5), "not what was written")

    async def counter(self, name):
        key, update = f"{self.prefix}-{name}", "UPDATE counts SET c = c + ? WHERE id = ?"
        for by in (1, 2, 4):
            await self.do(update, by, key)
        batch = acsylla.create_batch_counter()
        batch.add_statement(await self.bind(update, 8, key))
        await self.session.execute_batch(batch)
        for of in [*self.rounds, name]:
            got = await self.one("SELECT c FROM counts WHERE id = ?", f"{self.prefix}-{of}")
            check(got == (15,), "the counter of round", of, "is", got)

    async def types(self, name):
        n = self.begun
        values = {
            "a": "ascii", "bi": 2**62 + n, "bl": bytes(range(256)), "bo": n % 2 == 0, "da": date(2024, 2, 29),
            "de": Decimal("-123456789.000000000987654321"), "dbl": 0.1 + n, "fl": 1.5, "ine": "fd77::1", "i": -(2**31), "si": -32768,
            "te": "ümläut ☃ \U0001F600", "ti": time_of_day(13, 14, 15, 123456), "ts": datetime(2024, 2, 29, 1, 2, 3, 4000, timezone.utc),
            "tu": str(uuid.uuid1()), "ty": -128, "uu": str(uuid.uuid4()), "li": [3, 1, 2, n], "se": {"b", "a", name},
            "ma": {"k": n, "l": 2}, "fr": [[1, 2], [3]], "tup": (n, "two", 3.0), "ud": {"street": "Main", "number": n},
        }
        names = ", ".join(values)
        await self.do(f"INSERT INTO kinds (id, {names}) VALUES (?{', ?' * len(values)})", self.prefix, *values.values())
        row = await self.one(f"SELECT {names} FROM kinds WHERE id = ?", self.prefix)
        for column, got in zip(values, row):
            check(got == values[column], column, "is", repr(got), "and not", repr(values[column]))
        return "ok: varint, duration, user types in collections, vectors (the binding)"

    async def functions(self, name):
        key = f"{self.prefix}-functions"
        await self.do("INSERT INTO rows (id, v, at, u) VALUES (?, ?, toTimestamp(now()), now())", key, name)
        at, u = await self.one("SELECT at, u FROM rows WHERE id = ?", key)
        check(u is not None and at is not None, at, u)

    async def ttl(self, name):
        key = f"{self.prefix}-ttl"
        await self.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?", key, name, 1, 86400, time.time_ns() // 1000)
        left = (await self.one("SELECT TTL(v) FROM rows WHERE id = ?", key))[0]
        check(86300 < left <= 86400, "TTL", left)

    async def large(self, name):
        body = bytes((i * i + i // 251) % 256 for i in range(1000)) * 300
        await self.do("INSERT INTO big (id, b) VALUES (?, ?)", self.prefix, body)
        check(await self.one("SELECT b FROM big WHERE id = ?", self.prefix) == (body,), "a value of 300 kB came back different")

    async def together(self, name):
        """200 requests at once on few connections: each has to get its own answer."""

        async def each(i):
            key = f"{self.prefix}-many{i}"
            await self.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", key, name, i)
            check(await self.one("SELECT n FROM rows WHERE id = ?", key) == (i,), "answers are mixed up")

        await asyncio.gather(*[each(i) for i in range(200)])

    async def schema(self, name):
        table = f"made_{self.prefix}"
        for statement, there in ((f"CREATE TABLE {table} (id int PRIMARY KEY)", True), (f"DROP TABLE {table}", False)):
            await self.do(statement)
            end = time.time() + 20
            while (table in self.session.get_metadata().get_tables(self.other)) != there:
                check(time.time() < end, "the driver's schema does not follow", statement)
                await asyncio.sleep(0.05)

    async def nodes(self, name):
        end, least = time.time() + 20, 1 if name.startswith("finish") else 2
        while self.session.metrics().stats_total_connections < least:
            check(time.time() < end, "connections:", self.session.metrics().stats_total_connections)
            await asyncio.sleep(0.05)

    FEATURES = ("simple", "prepared", "batch", "paging", "lwt", "counter", "types", "functions", "ttl", "large", "together", "schema", "nodes")

    async def round(self, name):
        answer = {}
        self.begun += 1
        for feature in self.FEATURES:
            try:
                answer[feature] = await getattr(self, feature)(name) or "ok"
            except Exception as e:
                answer[feature] = f"failed: {type(e).__name__}: {e}"[:300]
        if name != "observe":  # what was written then is on one cluster alone
            self.rounds.append(name)
        return {"features": answer}


async def main():
    p = argparse.ArgumentParser()
    for name in ("contact", "user", "password", "keyspace", "record", "prefix", "compression"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--protocol", type=int, required=True)
    args = p.parse_args()
    # A request that a cut has lost ends while count() still waits for it.
    cluster = acsylla.create_cluster(args.contact.split(","), username=args.user, password=args.password, protocol_version=args.protocol,
                                     connect_timeout=20, request_timeout=8, constant_reconnect_delay_ms=500,
                                     load_balance_dc_aware="dc1", max_schema_wait_time_ms=20000)
    client = Client(args, await cluster.create_session(keyspace=args.keyspace + "_b"))
    writers = [asyncio.create_task(client.write(n)) for n in range(WRITERS)]
    print(json.dumps({"protocol": args.protocol}), flush=True)
    while True:
        line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        if not line:
            break
        word, _, rest = line.strip().partition(" ")
        if word == "table":
            client.table = rest
        print(json.dumps(await client.round(rest) if word == "round" else await client.count()), flush=True)
    client.stop = True
    await asyncio.gather(*writers)
    client.file.close()
    await client.session.close()


asyncio.run(main())
