# SPDX-License-Identifier: Apache-2.0
"""The proxy document's three stories, and each of its limitations and known issues as something that works.

A table is held and released by `cqlferry hold KEYSPACE.TABLE` and `cqlferry release KEYSPACE.TABLE`. What the migration
service does in between is done here by hand: unload = read the origin's rows with their WRITETIME, load = write them to
the target with it.
"""

import struct
import threading
import time

import cqlrows
import cqlwire
import lab
import pytest
import shared
from families import mirrored
from shared import connect, delivered, good, mirroring

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def running(clusters):
    agent = lab.Agent(*clusters, ebpf=False)
    try:
        yield mirroring(agent.start())
    finally:
        agent.remove()


@pytest.fixture(scope="module")
def pair(clusters):
    with shared.keyspaces(
        clusters,
        "stories",
        "ALTER TABLE stories.items ADD (at timeuuid, steps list<text>)",
        'CREATE TABLE stories.name (id int PRIMARY KEY, name text, "FROM name" text)',
        "CREATE TABLE stories.tasks (id timeuuid PRIMARY KEY, task text)",
    ) as names:
        pair = shared.Pair(clusters, names)
        yield pair
        pair.close()


@pytest.fixture
def rows(pair, running):
    delivered(running)
    pair.empty()
    return pair


@pytest.fixture
def agent(request, running):
    request.node.lab_agents = [running]
    return running


@pytest.fixture
def keyspace(rows):
    return rows.names[0]


@pytest.fixture
def held(agent, keyspace):
    """held(table): it waits from now on, until release(table), or the end of a test that failed."""
    tables = []

    def hold(table):
        agent.cli("hold", f"{keyspace}.{table}")
        tables.append(table)

    def release(table):
        agent.cli("release", f"{keyspace}.{table}")
        tables.remove(table)

    hold.release = release
    yield hold
    for table in tables:
        agent.cli("release", f"{keyspace}.{table}")


@pytest.fixture
def client(agent, keyspace):
    """Through the agent, bound to the keyspace as an application is."""
    c = connect(agent)
    good(c.query(f"USE {keyspace}"))
    yield c
    c.close()


def item(rows, key, column):
    row = rows.get(("items", (key.encode(),)))
    return row and row[column][0]


def unload(reader, keyspace):
    """Rows of `items` with the time at which each cell was written."""
    return reader.rows(keyspace, "items", ["id"], [("v", "text"), ("n", "int"), ("note", "text")])


def load(target, keyspace, unloaded):
    c = cqlrows.client(target)
    for (key,), row in unloaded.items():
        for column, (value, written, _) in row.items():
            if value is not None:
                p = c.prepared(f"INSERT INTO {keyspace}.items (id, {column}) VALUES (?, ?) USING TIMESTAMP ?")
                good(c.execute(p, [key, value, struct.pack(">q", written[0])]))
    c.close()


def old_rows(origin, keyspace, count=10):
    """What was on the origin before the agent came."""
    origin.run(*[f"INSERT INTO {keyspace}.items (id, v, n) VALUES ('k{i}', 'old', {i})" for i in range(count)])


# ---- story 1: written between unload and load. The unloaded data does not have it, and the target has not the row that it changes

BETWEEN = {
    "plain": [
        "UPDATE items SET v = 'new' WHERE id = 'k1'",
        "DELETE FROM items WHERE id = 'k2'",
        "DELETE v FROM items WHERE id = 'k3'",
        "UPDATE items USING TTL 9000 SET n = 77 WHERE id = 'k4'",
        "INSERT INTO items (id, v) VALUES ('k5', 'again')",
        "INSERT INTO items (id, v) VALUES ('fresh', 'new')",
        "BEGIN BATCH UPDATE items SET n = 5 WHERE id = 'k6'; DELETE FROM items WHERE id = 'k7'; APPLY BATCH",
    ],
    "lwt": [
        "UPDATE items SET v = 'new' WHERE id = 'k1' IF v = 'old'",
        "DELETE FROM items WHERE id = 'k2' IF EXISTS",
        "INSERT INTO items (id, v) VALUES ('k3', 'lost') IF NOT EXISTS",
        "INSERT INTO items (id, v) VALUES ('fresh', 'new') IF NOT EXISTS",
    ],
    "function": ["UPDATE items SET note = 'new', at = now() WHERE id = 'k1'"],
    "list": ["UPDATE items SET steps = steps + ['a'] WHERE id = 'k1'", "UPDATE items SET steps = ['b'] + steps WHERE id = 'k1'"],
}


def element_times(family):
    """A list that a row sync writes as a whole has other times than its elements had (docs/row-sync.md)."""
    return lambda x, y: x == y or (family == "list" and len(x) == len(y) > 1)


def between(origin, client, rows, keyspace, family):
    old_rows(origin, keyspace)
    unloaded = unload(rows.origin, keyspace)
    assert len(unloaded) == 10
    for text in BETWEEN[family]:
        good(client.query(text))
    return unloaded


@pytest.mark.parametrize("family", mirrored("plain", "function", "list"))
def test_an_update_between_unload_and_load(origin, target, agent, client, keyspace, rows, family):
    """With one timestamp on both sides and a load that keeps WRITETIME no table has to be held; conditional writes need it."""
    unloaded = between(origin, client, rows, keyspace, family)
    delivered(agent)
    load(target, keyspace, unloaded)
    here = rows.equal(times=element_times(family))
    assert item(here, "k1", "note" if family == "function" else "steps" if family == "list" else "v") not in (None, b"old")


@pytest.mark.parametrize("family", mirrored("plain", "lwt", "function", "list") if mirrored("hold") else [])
def test_an_update_of_a_held_table(origin, target, agent, held, client, keyspace, rows, family):
    held("items")
    unloaded = between(origin, client, rows, keyspace, family)
    load(target, keyspace, unloaded)
    held.release("items")
    rows.equal(times=element_times(family))


@pytest.mark.parametrize("family", mirrored("hold"))
def test_a_truncate_of_a_held_table(origin, target, agent, held, client, keyspace, rows, family):
    """Not held, it would come before the load, which brings the rows back."""
    held("items")
    old_rows(origin, keyspace)
    unloaded = unload(rows.origin, keyspace)
    good(client.query("TRUNCATE items"))
    good(client.query("INSERT INTO items (id, v) VALUES ('after', 'new')"))
    load(target, keyspace, unloaded)
    held.release("items")
    assert [k for k in rows.equal() if k[0] == "items"] == [("items", (b"after",))]


# ---- story 2: a batch, then updates of the same rows


def batch_then_updates(client):
    good(
        client.query(
            "BEGIN BATCH INSERT INTO items (id, v, n) VALUES ('a', 'batch', 1); INSERT INTO later (id, v, n) VALUES ('b', 'batch', 1); "
            "INSERT INTO items (id, v, n) VALUES ('c', 'batch', 1); APPLY BATCH"
        )
    )
    for i in range(5):
        good(client.query(f"UPDATE items SET v = 'update {i}' WHERE id = 'a'"))
        good(client.query(f"UPDATE later SET n = {i} WHERE id = 'b'"))
    good(client.query("DELETE FROM items WHERE id = 'c'"))


def ends_in_order(here):
    assert item(here, "a", "v") == b"update 4" and item(here, "a", "n") == b"\0\0\0\1"
    assert here["later", (b"b",)]["n"][0] == b"\0\0\0\4" and here["later", (b"b",)]["v"][0] == b"batch"
    assert ("items", (b"c",)) not in here


def test_a_batch_and_then_updates(agent, client, keyspace, rows):
    batch_then_updates(client)
    ends_in_order(rows.equal())


@pytest.mark.parametrize("family", mirrored("hold"))
@pytest.mark.parametrize("first", ["items", "later"])
def test_a_batch_and_then_updates_of_held_tables(agent, held, client, keyspace, rows, family, first):
    """Both tables held, released one after the other, in either order."""
    second = {"items": "later", "later": "items"}[first]
    held("items")
    held("later")
    batch_then_updates(client)
    held.release(first)
    held.release(second)
    ends_in_order(rows.equal())


# ---- story 3: a batch over a table that is loaded already and one that is held


@pytest.mark.parametrize("family", mirrored("hold"))
@pytest.mark.parametrize("form", ["text", "opcode", "prepared"])
def test_a_batch_over_a_loaded_and_a_held_table(agent, held, client, keyspace, rows, family, form):
    """All or nothing: as long as one of its tables is held nothing of it is seen on the target, and what comes behind it in the
    loaded table does not overtake it; other tables are not concerned."""
    one, other = "INSERT INTO items (id, v, n) VALUES ('a', 'batch', 1)", "INSERT INTO later (id, v, n) VALUES ('b', 'batch', 1)"
    held("later")
    if form == "text":
        good(client.query(f"BEGIN BATCH {one}; {other}; APPLY BATCH"))
    else:
        children = [client.prepared(t) if form == "prepared" else t for t in (one, other)]
        good(client.batch(cqlwire.LOGGED, [(c, []) for c in children]))
    good(client.query("INSERT INTO events (w, i, v) VALUES (1, 1, 'free')"))
    lab.wait_until(lambda: ("events", (b"\0\0\0\1", b"\0\0\0\1")) in rows.there(), 10, "a table that is not concerned goes on")
    end = time.time() + 2
    while time.time() < end:  # the whole of it is to stay away; there is no event to wait for
        assert {k[0] for k in rows.there()} == {"events"}
        time.sleep(0.2)
    good(client.query("UPDATE items SET v = 'later' WHERE id = 'a'"))
    assert len([k for k in rows.origin.read(keyspace) if k[0] in ("items", "later")]) == 2, "the origin has it all the while"
    held.release("later")
    here = rows.equal()
    assert item(here, "a", "v") == b"later" and here["later", (b"b",)]["v"][0] == b"batch"


# ---- limitations, and what the document's proxy did not do


# "An update without a condition is an upsert and need not wait, but we cannot tell": told by the tokenizer.
@pytest.mark.parametrize("family", mirrored("hold"))
def test_an_upsert_does_not_wait(agent, held, client, keyspace, rows, family):
    held("items")
    good(client.query("UPDATE items SET v = 'upsert' WHERE id = 'a'"))
    good(client.query("UPDATE items SET note = 'IF EXISTS' WHERE id = 'a'"))
    lab.wait_until(lambda: item(rows.there(), "a", "note") == b"IF EXISTS", 10, "the upserts pass the held table")
    if mirrored("lwt"):
        good(client.query("UPDATE items SET v = 'changed' WHERE id = 'a' IF v = 'upsert'"))
        end = time.time() + 2
        while time.time() < end:
            assert item(rows.there(), "a", "v") == b"upsert", "a condition waits"
            time.sleep(0.2)
    held.release("items")
    rows.equal()


# "The schema must not be altered during a migration": it may, and writes that need the change come after it.
def test_the_schema_may_change(agent, client, keyspace, rows):
    good(client.query("CREATE TYPE place (city text)"))
    good(client.query("CREATE TABLE made (id int PRIMARY KEY, v text, p frozen<place>)"))
    good(client.query("INSERT INTO made (id, v, p) VALUES (1, 'a', {city: 'x'})"))
    good(client.query("ALTER TABLE made ADD more int"))
    insert = client.prepared("INSERT INTO made (id, more) VALUES (?, ?)")
    for i in range(20):
        good(client.execute(insert, [struct.pack(">i", i), struct.pack(">i", i)]))
    good(client.query("ALTER TABLE made DROP v"))
    good(client.query("UPDATE made SET more = 100 WHERE id = 1"))
    good(client.query("CREATE TABLE passing (id int PRIMARY KEY)"))
    good(client.query("INSERT INTO passing (id) VALUES (1)"))
    good(client.query("DROP TABLE passing"))
    delivered(agent)
    here = rows.equal()
    assert len([k for k in here if k[0] == "made"]) == 20
    assert rows.origin.tables(keyspace) == rows.target.tables(keyspace)


# "DELETE name FROM name goes wrong, because the keyspace is put in by searching": no text is searched or changed.
@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_column_with_its_tables_name(agent, clusters, keyspace, rows, version):
    c = connect(agent, version)
    good(c.query(f"USE {keyspace}"))
    for i in range(6):
        good(c.query(f"INSERT INTO name (id, name, \"FROM name\") VALUES ({i}, 'DELETE name FROM name', 'name')"))
    good(c.query("DELETE name FROM name WHERE id = 1"))
    good(c.execute(c.prepared('DELETE name, "FROM name" FROM name WHERE id = ?'), [b"\0\0\0\2"]))
    good(c.query("BEGIN BATCH DELETE name FROM name WHERE id = 3; UPDATE name SET name = 'name' WHERE id = 4; APPLY BATCH"))
    good(c.batch(cqlwire.LOGGED, [("DELETE name FROM name WHERE id = 5", [])]))
    c.close()
    here = rows.equal()
    assert [here["name", (struct.pack(">i", i),)]["name"][0] for i in range(6)] == [
        b"DELETE name FROM name",
        None,
        None,
        None,
        b"name",
        None,
    ]


# "A batch that comes as text in a QUERY, as cqlsh sends it, is not supported".
def test_a_batch_as_text(agent, client, keyspace, rows):
    good(
        client.query(
            "BEGIN UNLOGGED BATCH USING TIMESTAMP 1234 INSERT INTO items (id, v) VALUES ('a', 'x; APPLY BATCH'); "
            "UPDATE items SET n = 3 WHERE id = 'a'; APPLY BATCH;"
        )
    )
    good(
        client.query(
            "begin batch\n insert into items (id, v) values ('b', $$BEGIN BATCH$$) -- ;\n insert into later (id, n) values ('b', 1)\n apply batch"
        )
    )
    good(
        client.query(
            "BEGIN BATCH INSERT INTO items (id, v) VALUES (?, ?); DELETE n FROM items WHERE id = ? APPLY BATCH",
            [b"c", b"bound", b"a"],
        )
    )
    p = client.prepared("BEGIN BATCH UPDATE items SET n = ? WHERE id = 'd'; UPDATE items SET v = ? WHERE id = 'd'; APPLY BATCH")
    good(client.execute(p, [b"\0\0\0\4", b"prepared"]))
    here = rows.equal()
    assert here["items", (b"a",)]["v"][:2] == (b"x; APPLY BATCH", (1234,)) and item(here, "a", "n") is None
    assert item(here, "b", "v") == b"BEGIN BATCH" and item(here, "c", "v") == b"bound" and item(here, "d", "n") == b"\0\0\0\4"
    assert len(here) == 5


# "Every session's keyspace is kept, since queued statements may run after the client has gone to another one".
@pytest.mark.parametrize("version", [4, 5])
def test_a_client_that_changes_its_keyspace(agent, keyspace, rows, version):
    """USE and writes in turn, pipelined: each write goes where the client was when it sent it."""
    c = connect(agent, version)
    other, names = keyspace + "_b", {}
    for i in range(60):
        names[i] = (keyspace, other)[i % 2]
        good(c.query(f"USE {names[i]}"))
        streams = [c.send(cqlwire.QUERY, c.query_body(f"INSERT INTO items (id, n) VALUES ('u{i}-{j}', {j})")) for j in range(5)]
        for _ in streams:
            good(c.answer()[1])
    c.close()
    for k in (keyspace, other):
        keys = {key[0].decode() for t, key in rows.equal(k) if t == "items"}
        assert keys == {f"u{i}-{j}" for i, name in names.items() if name == k for j in range(5)}


# "A timestamp in the statement is respected": the document's own statement, a server function beside it.
@pytest.mark.parametrize("family", mirrored("function"))
def test_now_with_a_timestamp_of_the_clients(agent, clusters, client, keyspace, rows, family):
    good(client.query("INSERT INTO tasks(id, task) VALUES (now(), 'task') USING TIMESTAMP 123456789;"))
    good(client.query("INSERT INTO tasks(id, task) VALUES (now(), 'codebase');"))
    here = rows.equal()
    assert sorted(r["task"][0] for r in here.values()) == [b"codebase", b"task"]
    assert {r["task"][1] for r in here.values() if r["task"][0] == b"task"} == {(123456789,)}


# "Statements get another id on each cluster, and ids are mapped": also when the target forgets its own.
def test_prepared_statements_that_the_target_forgot(agent, target, client, keyspace, rows):
    insert, before = client.prepared("INSERT INTO items (id, n) VALUES (?, ?)"), agent.metric("cqlferry_unmirrored_total")
    good(client.execute(insert, [b"before", b"\0\0\0\1"]))
    rows.equal()
    target.run(f"ALTER TABLE {keyspace}.items WITH comment = 'the statements of an altered table are dropped'")
    for i in range(20):
        good(client.execute(insert, [b"after%d" % i, b"\0\0\0\2"]))
    assert len([k for k in rows.equal() if k[0] == "items"]) == 21
    assert agent.metric("cqlferry_unmirrored_total") == before


# "Only user and password of the environment, for everybody": each client is who it says it is.
def test_each_client_is_itself(agent, clusters, keyspace, rows):
    origin = clusters[0]
    origin.run(
        "CREATE ROLE IF NOT EXISTS painter WITH PASSWORD = 'painter' AND LOGIN = true",
        f"GRANT MODIFY ON {keyspace}.later TO painter",
    )
    try:
        c = connect(agent, user="painter")
        good(c.query(f"INSERT INTO {keyspace}.later (id, v) VALUES ('mine', 'x')"))
        assert c.query(f"INSERT INTO {keyspace}.items (id, v) VALUES ('not mine', 'x')").code == cqlwire.UNAUTHORIZED
        assert c.query(f"SELECT * FROM {keyspace}.later").code == cqlwire.UNAUTHORIZED
        c.close()
        assert list(rows.equal()) == [("later", (b"mine",))], "the mirror's role need not be the client's"
    finally:
        origin.run("DROP ROLE painter")


# "After the redirection two successes go back to the client": each request is answered exactly once, also those in flight at the
# switch. The last test of the file: the agent's phase is everybody's.
def test_one_answer_each_over_a_cutover(agent, client, keyspace, rows):
    seen, sent, waiting, stop = {}, set(), {}, threading.Event()
    insert = client.prepared("INSERT INTO items (id, n) VALUES (?, ?)")

    def write():
        """Twenty at once, answered or not, some hundred times a second."""
        free, number = list(range(20)), 0
        while len(free) < 20 or not stop.is_set():
            while free and not stop.is_set():
                stream, key = free.pop(), b"s%d" % number
                number += 1
                sent.add(key)
                waiting[stream] = key
                client.socket.sendall(client.frame(cqlwire.EXECUTE, client.execute_body(insert, [key, b"\0\0\0\1"]), stream))
            stream, answer = client.answer()
            seen.setdefault(waiting.pop(stream, ("nobody asked on", stream)), []).append(answer.code)
            free.append(stream)
            stop.wait(0.003)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        lab.wait_until(lambda: len(seen) > 100, 20, "the writer runs")
        agent.phase("cutover", "--force")
        for phase in ("rollback", None):
            before = len(seen)
            lab.wait_until(lambda n=before: len(seen) > n + 100, 20, "it goes on after the switch")
            if phase:
                agent.phase(phase)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive() and seen.keys() == sent and all(codes == [None] for codes in seen.values())
    client.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.answer()
    delivered(agent)
    assert len([k for k in rows.equal() if k[0] == "items"]) == len(sent)
