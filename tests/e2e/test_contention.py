# SPDX-License-Identifier: Apache-2.0
"""Many clients on the same keys, without timestamps of their own: both clusters come to the same end, WRITETIME included.

A proxy that leaves the timestamps to the two coordinators fails this: their clocks, and the order in which two
connections deliver, decide each key on each cluster for itself.
"""

import random
import struct
import threading

import cqlrows
import cqlwire
import lab
import pytest
import shared
from families import mirrored
from shared import connect, delivered, good, mirroring

pytestmark = pytest.mark.quick
WRITERS = 16
KEYS = 8


def number(n):
    return struct.pack(">i", n)


@pytest.fixture(scope="module")
def running(clusters):
    """Several workers: sessions on the same keys do not share a thread."""
    agent = lab.Agent(*clusters, ebpf=False, workers=4)
    try:
        yield mirroring(agent.start())
    finally:
        agent.remove()


@pytest.fixture(scope="module")
def rows(clusters):
    with shared.keyspaces(
        clusters,
        "contended",
        "CREATE TABLE contended.hits (id int PRIMARY KEY, a counter, b counter)",
        "CREATE TABLE contended.lists (id int PRIMARY KEY, l list<text>)",
        "ALTER TABLE contended.items ADD (steps list<int>, at timeuuid, moment timestamp, moments map<text, timestamp>)",
    ) as names:
        pair = shared.Pair(clusters, names)
        yield pair
        pair.close()


@pytest.fixture
def agent(request, rows, running):
    request.node.lab_agents = [running]
    delivered(running)
    rows.empty()
    return running


@pytest.fixture
def keyspace(rows):
    return rows.names[0]


def at_once(agent, work, writers=WRITERS):
    """work(number, client) in so many threads that begin together; their results. One that fails fails the test."""
    barrier, results, failures = threading.Barrier(writers), [None] * writers, []

    def run(n):
        try:
            c = connect(agent, (4, 5)[n % 2])
            try:
                barrier.wait(30)
                results[n] = work(n, c)
            finally:
                c.close()
        except Exception as e:  # whatever it was belongs into the test's verdict
            barrier.abort()
            failures.append(f"writer {n}: {type(e).__name__} {e}")

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(writers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not failures and not any(t.is_alive() for t in threads), failures[:4] or "a writer hangs"
    return results


def applied(answer):
    """(whether the condition held, the row); (None, {}) where many contend for so long that nobody knows."""
    if answer.code in (cqlwire.WRITE_TIMEOUT, cqlwire.CAS_UNKNOWN):
        return None, {}
    row = good(answer).rows()[0]
    return row["[applied]"] == b"\1", row


def test_shared_keys_without_client_timestamps(agent, keyspace, rows):
    def work(n, c):
        rng = random.Random(n)
        good(c.query(f"USE {keyspace}"))
        insert = c.prepared("INSERT INTO items (id, v, n) VALUES (?, ?, ?)")
        for i in range(80):
            key, what = f"k{rng.randrange(KEYS)}", rng.randrange(8)
            if what < 3:
                good(c.execute(insert, [key.encode(), f"{n}/{i}".encode(), number(i)]))
            elif what == 3:
                good(c.query(f"UPDATE items SET note = 'from {n}/{i}', tags = tags + {{'{n}'}} WHERE id = '{key}'"))
            elif what == 4:
                good(c.query(f"DELETE note FROM items WHERE id = '{key}'"))
            elif what == 5:
                good(c.query(f"DELETE FROM items WHERE id = '{key}'"))
            elif what == 6:
                good(
                    c.query(
                        f"BEGIN BATCH UPDATE items SET n = {i}, v = 'batch {n}/{i}' WHERE id = '{key}'; "
                        f"INSERT INTO events (w, i, v, level) VALUES (1, {rng.randrange(4)}, '{n}', '{n}/{i}'); APPLY BATCH"
                    )
                )
            else:
                other = f"k{rng.randrange(KEYS)}"
                good(
                    c.batch(cqlwire.UNLOGGED, [(insert, [k.encode(), f"two {n}/{i}".encode(), number(-i)]) for k in {key, other}])
                )

    at_once(agent, work)
    here = rows.equal()
    assert len(here) >= 4


def test_pipelined_on_one_connection(agent, keyspace, rows):
    """20,000 INSERTs without timestamps to four keys, a thousand in flight. Cassandra runs them in any order, and which one stays
    has to be the same one on both clusters."""
    c, total, window = connect(agent), 20000, 1000
    good(c.query(f"USE {keyspace}"))
    insert, sent, free = c.prepared("INSERT INTO items (id, n, v) VALUES (?, ?, ?)"), 0, list(range(window))
    for _ in range(total):
        frames = b""
        while free and sent < total:
            body = c.execute_body(insert, [b"p%d" % (sent % 4), number(sent), b"v%d" % sent])
            frames += c.frame(cqlwire.EXECUTE, body, free.pop())
            sent += 1
        if frames:
            c.socket.sendall(frames)
        stream, answer = c.answer()
        good(answer)
        free.append(stream)
    c.close()
    assert len(rows.equal()) == 4


@pytest.mark.parametrize("family", mirrored("lwt"))
def test_races_for_a_row(agent, keyspace, rows, family):
    """INSERT IF NOT EXISTS: one winner for each row, and the target has the winner's."""
    rounds = 40

    def work(n, c):
        won = []
        for i in range(rounds):
            yes, _ = applied(c.query(f"INSERT INTO {keyspace}.items (id, v, n) VALUES ('r{i}', 'writer {n}', {n}) IF NOT EXISTS"))
            if yes:
                won.append(i)
            if i % 8 == 7:  # these rows somebody takes away again, if they are still so
                applied(c.query(f"DELETE FROM {keyspace}.items WHERE id = 'r{i}' IF n = {(n + 1) % WRITERS}"))
        return won

    won = [w for w in sum(at_once(agent, work), []) if w % 8 != 7]
    assert len(won) == len(set(won)), "two writers were told that they had made the same row"
    here = rows.equal()
    assert len([k for k in here if k[0] == "items"]) >= rounds * 7 // 8


@pytest.mark.parametrize("family", mirrored("lwt"))
def test_compare_and_set(agent, keyspace, rows, origin, target, family):
    """Sixteen writers add to the same numbers by UPDATE IF: no addition is lost on either cluster."""
    origin.run(*[f"INSERT INTO {keyspace}.items (id, n) VALUES ('c{k}', 0) USING TIMESTAMP 1" for k in range(4)])
    target.run(*[f"INSERT INTO {keyspace}.items (id, n) VALUES ('c{k}', 0) USING TIMESTAMP 1" for k in range(4)])

    def work(n, c):
        done, known = [0] * 5, [0] * 4  # the last one: nobody knows
        for i in range(60):
            k = (n + i) % 4
            yes, row = applied(
                c.query(f"UPDATE {keyspace}.items SET n = {known[k] + 1}, v = '{n}/{i}' WHERE id = 'c{k}' IF n = {known[k]}")
            )
            if yes is False:
                known[k] = struct.unpack(">i", row["n"])[0]
            else:
                known[k] += bool(yes)
                done[k if yes else 4] += 1
        return done

    *sums, unknown = [sum(d) for d in zip(*at_once(agent, work))]
    here = rows.equal()
    have = [struct.unpack(">i", here["items", (b"c%d" % k,)]["n"][0])[0] for k in range(4)]
    assert sum(sums) > 0 and all(h >= s for h, s in zip(have, sums)) and sum(have) - sum(sums) <= unknown, (have, sums, unknown)


@pytest.mark.parametrize("family", mirrored("counter"))
def test_counters_count_once(agent, keyspace, rows, family):
    def work(n, c):
        total, rng = [0, 0], random.Random(n)
        add = c.prepared(f"UPDATE {keyspace}.hits SET a = a + ? WHERE id = ?")
        for i in range(60):
            key, by = rng.randrange(4), rng.randrange(1, 9)
            if i % 3 == 0:
                good(c.execute(add, [struct.pack(">q", by), number(key)]))
                total[0] += by
            elif i % 3 == 1:
                good(c.query(f"UPDATE {keyspace}.hits SET b -= {by} WHERE id = {key}"))
                total[1] -= by
            else:
                good(c.batch(cqlwire.COUNTER, [(add, [struct.pack(">q", by), number(k)]) for k in (0, 1)]))
                total[0] += 2 * by
        return total

    want = [sum(x) for x in zip(*at_once(agent, work))]
    here = rows.equal()
    have = [
        sum(struct.unpack(">q", r[c][0])[0] for (t, _), r in here.items() if t == "hits" and r[c][0] is not None) for c in "ab"
    ]
    assert have == want, "the origin's sums are not what was acknowledged"


@pytest.mark.parametrize("version", (3, 4, 5))
@pytest.mark.parametrize("family", mirrored("counter"))
def test_a_counter_goes_with_the_row(agent, keyspace, rows, family, version):
    """What is counted and then deleted is gone on both clusters, and what is counted after that is there on both."""
    c, table, one = connect(agent, version), f"{keyspace}.hits", struct.pack(">q", 1)
    add = c.prepared(f"UPDATE {table} SET a = a + ? WHERE id = ?")
    ways = (
        lambda k: c.query(f"UPDATE {table} SET a = a + 1 WHERE id = {k}"),
        lambda k: c.query(f"UPDATE {table} SET a += ? WHERE id = ?", [one, number(k)]),
        lambda k: c.execute(add, [one, number(k)]),
        lambda k: c.batch(cqlwire.COUNTER, [(f"UPDATE {table} SET a = a - 1 WHERE id = {k}", ()), (add, [one, number(k)])]),
        lambda k: c.query(f"BEGIN COUNTER BATCH UPDATE {table} SET a = a + 1 WHERE id = {k}; APPLY BATCH"),
    )
    for k in range(40):
        good(ways[k % 5](k))
        good(c.query(f"DELETE FROM {table} WHERE id = {k}"))
    good(ways[0](100))
    c.close()
    here = rows.equal()
    assert [k for t, k in here if t == "hits"] == [(number(100),)]


@pytest.mark.parametrize("family", mirrored("list"))
def test_appends_from_all_sides(agent, keyspace, rows, family):
    """What sixteen writers append and prepend to a few lists is in the same order on both clusters, and nothing twice. Where
    writers interleave a list is written again as a whole, which moves the times of its elements (docs/row-sync.md)."""

    def work(n, c):
        for i in range(20):
            term = (f"l + ['{n}/{i}']", f"['{n}/{i}'] + l")[i % 2]
            good(c.query(f"UPDATE {keyspace}.lists SET l = {term} WHERE id = {i % 3}"))

    at_once(agent, work)
    here = rows.equal(times=lambda x, y: x == y or len(x) == len(y) > 1)
    elements = []
    for (table, _), row in here.items():
        if table == "lists":
            r = cqlwire.Reader(row["l"][0])
            elements += [r.bytes() for _ in range(r.int())]
    assert sorted(elements) == sorted(f"{n}/{i}".encode() for n in range(WRITERS) for i in range(20))


def test_the_string_now_is_one_instant(agent, keyspace, rows):
    """A timestamp column takes the string for the coordinator's present, and the target's comes later."""
    c, key = connect(agent, 5), iter(range(100))
    good(c.query(f"USE {keyspace}"))
    for value in ("'now'", "$$NoW$$", "(timestamp)'now'", "'now' - 1d", "fromJson('\"now\"')"):
        good(c.query(f"INSERT INTO items (id, moment) VALUES ('m{next(key)}', {value})"))
    good(c.query(f"UPDATE items SET moments = {{'a': 'now'}} WHERE id = 'm{next(key)}'"))
    good(c.query(f"UPDATE items SET moments['b'] = 'now' WHERE id = 'm{next(key)}'"))
    document = '{"id": "m%d", "moment": "now", "moments": {"a": "Now"}}'
    good(c.query(f"INSERT INTO items JSON '{document % next(key)}'"))
    good(c.query("INSERT INTO items JSON ?", [(document % next(key)).encode()]))
    good(c.execute(c.prepared("INSERT INTO items JSON ?"), [(document % next(key)).encode()]))
    good(c.execute(c.prepared("INSERT INTO items (id, moment) VALUES (?, fromJson(?))"), [b"m%d" % next(key), b'"now"']))
    good(c.execute(c.prepared("INSERT INTO items (id, moment) VALUES (?, 'now')"), [b"m%d" % next(key)]))
    good(c.query(f"BEGIN BATCH INSERT INTO items (id, moment) VALUES ('m{next(key)}', 'now'); APPLY BATCH"))
    good(c.batch(cqlwire.LOGGED, [(f"INSERT INTO items (id, moment) VALUES ('m{next(key)}', 'now')", ())]))
    good(c.query("INSERT INTO items (id, v) VALUES ('now', 'now')"))  # texts are texts
    here = rows.equal()
    assert ("items", (b"now",)) in here and len(here) == next(key) + 1


# What is not simply repeated on the target, and so may be stamped by another clock than a plain write.
SPECIAL = {
    "lwt": "UPDATE items SET n = ? WHERE id = 'turns' IF n = ?",
    "list": "UPDATE items SET n = ?, steps = [1, 2] WHERE id = 'turns'",
    "function": "UPDATE items SET n = ?, at = now() WHERE id = 'turns'",
}


@pytest.mark.parametrize("way, special", [("straight", "lwt")] + [("agent", k) for k in SPECIAL if mirrored("order")])
def test_a_plain_write_and_a_special_one_by_turns(agent, origin, keyspace, way, special):
    """A client that gives no timestamps sees its writes in their order, whoever stamps which. The agent's clock counts in
    microseconds and the origin's in milliseconds; straight all are the origin's."""
    c = connect(agent, 5) if way == "agent" else cqlrows.client(origin)
    good(c.query(f"USE {keyspace}"))
    good(c.query("INSERT INTO items (id, n) VALUES ('turns', 0)"))
    plain, change = c.prepared("UPDATE items SET n = ? WHERE id = 'turns'"), c.prepared(SPECIAL[special])
    lost = []
    for i in range(2, 500, 2):
        good(c.execute(plain, [number(i)]))
        answer = good(c.execute(change, [number(i + 1)] + [number(i)] * (special == "lwt")))
        if special == "lwt":
            assert answer.rows()[0]["[applied]"] == b"\1", f"{i}: the condition did not see the write before it"
        if good(c.query("SELECT n FROM items WHERE id = 'turns'")).rows()[0]["n"] != number(i + 1):
            lost.append(i)
    c.close()
    assert not lost, f"{len(lost)} of 249 writes were acknowledged and are not there: {lost[:9]}"
