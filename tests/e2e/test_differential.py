# SPDX-License-Identifier: Apache-2.0
"""The same random statements through the agent and straight to the origin. A client sees no difference, the target has
what the origin has, and neither has anything that it would not have without the agent.

A failure names its seed: LAB_SEED=n LAB_STATEMENTS=m tests/e2e/run.sh BUILD -k same_statements
runs it again; LAB_SEED takes several, with commas.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import cqlrows
import cqlschema
import differ
import lab
import pytest
from cqlmaker import Maker
from cqlstatement import KS, Piece, Statement
from families import ALL, mirrored

pytestmark = pytest.mark.quick
COUNT = int(os.environ.get("LAB_STATEMENTS", "3000"))
SEEDS = [int(s) for s in os.environ.get("LAB_SEED", "1").split(",")]
DATA = [f for f in ALL if f not in ("unknown", "hold", "order")]  # families that are a statement's, not a circumstance's
UNMIRRORED = {
    "lwt": "lwt",
    "counter": "counter",
    "list": "list_operation",
    "function": "server_function",
    "undecided": "unclassified",
}

# In this order, anywhere among the others. What it makes is written to on the way.
SCHEMA = [
    f"CREATE TABLE {KS}.late (id int PRIMARY KEY, v text)",
    f"INSERT INTO {KS}.late (id, v) VALUES (1, 'a')",
    f"ALTER TABLE {KS}.late ADD w int",
    f"INSERT INTO {KS}.late (id, v, w) VALUES (2, 'b', 3)",
    f"TRUNCATE {KS}.late",
    f"INSERT INTO {KS}.late (id, v) VALUES (3, 'c')",
    f"CREATE TYPE {KS}.later (x int)",
    f"CREATE INDEX late_v ON {KS}.late (v)",
    f"DROP INDEX {KS}.late_v",
    f"UPDATE {KS}.late SET w = 5 WHERE id = 3",
]


def statements(seed, families, count, vectors):
    maker, rng = Maker(seed, families, vectors), random.Random(seed)
    at = sorted(rng.sample(range(count), len(SCHEMA)))
    for n in range(count):
        if at and at[0] == n:
            at.pop(0)
            key = (b"\0\0\0\3",)
            yield Statement(n, "simple", 4, [Piece(SCHEMA[-1 - len(at)], touches={("late", key)})])
        yield maker.next()


@pytest.fixture
def keyspaces(clusters):
    """Through the agent and straight: two names of one length, both on both clusters, so that what strays is found."""
    names = ("ferried", "control")
    vectors = all((c.version or "5").startswith("5") for c in clusters)

    def make(cluster):
        for k in names:
            cluster.run(
                f"DROP KEYSPACE IF EXISTS {k}",
                f"CREATE KEYSPACE {k} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
                *cqlschema.schema(k, vectors),
            )

    def both(what):  # a schema change takes its time, but not the other cluster's
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(what, clusters))

    both(make)
    yield names + (vectors,)
    both(lambda c: c.run(*[f"DROP KEYSPACE IF EXISTS {k}" for k in names]))


class Run:
    """One seed's statements, both ways, and the judgement."""

    def __init__(self, agent, clusters, keyspaces, seed, families):
        self.agent, self.clusters, self.seed, self.families = agent, clusters, seed, families
        self.ferried, self.control, self.vectors = keyspaces
        self.readers = cqlrows.readers(clusters)
        self.pair = differ.Differ((lab.NODE_IP, agent.config["listen"]["port"]), (clusters[0].address, 9042), keyspaces[:2])

    def close(self):
        self.pair.close()
        for r in self.readers:
            r.close()

    def expect(self, found, what):
        assert not found, f"seed {self.seed}: {what}\n{differ.report(found, self.pair.story(found[0][0]))}"

    def fewest(self, found):
        """The smallest part of the first difference's story that still shows it."""
        at, tables = found[0][0], {t.table.strip('"') for t in cqlschema.tables()}
        story = self.pair.story(at)[-40:]
        if at[0] not in tables:
            return story

        def fails(chosen):
            for cluster, names in zip(self.clusters, ((self.ferried, self.control), (self.ferried,))):
                cluster.run(*[f'TRUNCATE {k}."{at[0]}"' for k in names])
            for s in chosen:
                self.pair.run(s)
            return any(where[0] == at[0] for where, _ in cqlrows.settle(*self.readers, self.ferried, 2)[0])

        return differ.shrink(story, fails) if fails(story) else story

    def send(self):
        began = time.time()
        seen = self.pair.run_all(statements(self.seed, self.families, COUNT, self.vectors))
        assert not seen, f"seed {self.seed}: a client saw a difference\n{seen}"
        return time.time() - began

    def judge_target(self):
        """The origin's rows. What is to be mirrored is mirrored: nothing of it may have been counted as left out."""
        lab.wait_until(lambda: self.agent.metric("cqlferry_mirror_backlog_records") == 0, 30, "an empty backlog")
        metrics = self.agent.metrics()
        left_out = {f: metrics.get(f'cqlferry_unmirrored_total{{cause="{c}"}}', 0) for f, c in UNMIRRORED.items()}
        found, rows = cqlrows.settle(*self.readers, self.ferried, 10)
        if found:
            few = "\n".join(map(str, self.fewest(found)))
            self.expect(found, f"origin and target, left out {left_out}; the fewest statements that show the first:\n{few}")
        assert not any(left_out.values()), f"seed {self.seed}: counted as not mirrored: {left_out}"
        assert not self.readers[1].read(self.control), "rows of another keyspace have come to the target"
        return rows

    def judge_control(self, started):
        """The statements that went straight had the same effect."""
        loose = {t.table for t in cqlschema.tables() if "functions" in t.kinds}
        rows, straight = (self.readers[0].read(k) for k in (self.ferried, self.control))
        names = ("ferried", "control")
        strict = [{k: v for k, v in r.items() if k[0] not in loose} for r in (rows, straight)]
        self.expect(cqlrows.differences(*strict, names, differ.other_clock(started)), "with and without the agent")
        shapes = [differ.shape(r, loose) for r in (rows, straight)]
        self.expect(cqlrows.differences(*shapes, names), "with and without the agent, rows of functions")


@pytest.mark.parametrize("seed", SEEDS)
def test_same_statements(make_agent, clusters, keyspaces, seed):
    """In all their forms, mixed."""
    agent, started = make_agent(ebpf=False), time.time_ns() // 1000
    agent.phase("mirror")
    run = Run(agent, clusters, keyspaces, seed, set(mirrored()) & set(DATA))
    try:
        took = run.send()
        run.judge_control(started)
        rows = run.judge_target()
        assert len(rows) > COUNT / 30, "hardly anything was written"
        print(f"{COUNT} statements in {took:.1f} s, {len(rows)} rows, seed {seed}")
    finally:
        run.close()


@pytest.mark.offline
def test_each_kind_of_difference_is_found():
    """What the comparison of rows is to find, planted."""
    now = 2e9
    row = {"v": (b"x", (5,), (now,)), "s": (b"list", (5, 6), (None, now)), "n": (None, (), ())}
    one = {("t", (b"a",)): row, ("t", (b"b",)): row}

    def found(column=None, cell=None, rows=one):
        two = {k: dict(r) for k, r in rows.items()}
        if column:
            two["t", (b"a",)][column] = cell
        return [words for _, words in cqlrows.differences(one, two)]

    assert found() == [] and found("v", (b"x", (5,), (now + 2,))) == []
    assert "only on the origin" in found(rows={("t", (b"a",)): row})[0]
    for column, cell, words in (
        ("v", (b"y", (5,), (now,)), "v: origin b'x'"),
        ("v", (None, (), ()), "target null"),
        ("v", (b"x", (6,), (now,)), "written"),
        ("v", (b"x", (5,), (now + 3,)), "expires"),
        ("v", (b"x", (5,), ()), "expires"),
        ("s", (b"list", (5, 7), (None, now)), "written"),
        ("s", (b"list", (5, 6), (None, now - 5)), "expires"),
        ("n", (b"1", (5,), ()), "origin null"),
    ):
        assert [words in f for f in found(column, cell)] == [True], (column, cell)
    mine, server = differ.other_clock(10**15), 1_795_000_000_000_000
    assert (
        mine((5,), (5,))
        and mine((server,), (server + 9,))
        and not mine((5,), (6,))
        and not mine((5,), (server,))
        and not mine((5,), ())
    )


@pytest.mark.offline
def test_the_same_seed_makes_the_same_statements():
    def told(seed, families=frozenset(DATA)):
        return [str(s) for s in statements(seed, set(families), 600, True)]

    assert told(1) == told(1) != told(2)
    made = [s for s in statements(3, set(DATA), 3000, True)]
    text = " ".join(p.text.lower() for s in made for p in s.pieces)
    for word in (
        "if not exists",
        "if exists",
        "json",
        "begin counter batch",
        "begin unlogged",
        "using ttl",
        "default unset",
        "now()",
        "current_timestamp",
        "truncate",
        "alter table",
        " in (",
        "$$",
        "/*",
        "order by",
        "+=",
        "vec",
        "late_v",
    ):
        assert word in text, f"no statement with {word}"
    assert {s.version for s in made} == {3, 4, 5} and {s.form for s in made} == {"simple", "prepared", "batch", "again"}
    assert {t for s in made for p in s.pieces for t in p.tags} >= set(DATA) - {"plain"}
    assert not any(s.pieces[0].tags - {"untyped"} for s in statements(4, {"plain"}, 1000, True))


@pytest.mark.offline
def test_what_can_be_left_out_is_left_out():
    assert differ.shrink(list(range(30)), lambda x: 7 in x and 21 in x) == [7, 21]
