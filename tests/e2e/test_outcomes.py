# SPDX-License-Identifier: Apache-2.0
"""What becomes of a write by its outcome. Refused by the origin: nothing of it reaches the target, whoever could run it.
Unknown: both clusters end equal. Refused by the target: the client and the other tables do not notice, and it is on record."""

import json
import time

import cqlwire
import faultnode
import lab
import pytest
import shared
from conftest import ORIGINS
from cqlwire import CONFIG, EXISTS, INVALID, SYNTAX, UNAUTHORIZED, UNAVAILABLE, UNPREPARED
from families import mirrored
from shared import connect, delivered, mirroring

pytestmark = pytest.mark.quick
READER = "reader"  # may read everything and write nothing


@pytest.fixture(scope="module")
def pair(clusters):
    with shared.keyspaces(clusters, "outcomes") as names:
        pair = shared.Pair(clusters, names)
        yield pair
        pair.close()


@pytest.fixture
def rows(pair):
    pair.empty()
    return pair


@pytest.fixture
def keyspace(rows):
    return rows.names[0]


def start(make_agent, **more):
    return mirroring(make_agent(ebpf=False, **more))


def forms(client, keyspace, text):
    """{form: answer} of one statement in each form in which a client can say it; a PREPARE that is refused is the answer."""
    good = f"INSERT INTO {keyspace}.items (id, n) VALUES ('with', 1)"
    out = {
        "text": client.query(text),
        "batch text": client.query(f"BEGIN BATCH {good}; {text}; APPLY BATCH"),
        "batch": client.batch(cqlwire.LOGGED, [(good, []), (text, [])]),
    }
    prepared = client.prepare(text)
    if prepared.kind == cqlwire.PREPARED:
        p = cqlwire.Prepared(prepared)
        out["prepared"] = client.execute(p)
        out["batch prepared"] = client.batch(cqlwire.UNLOGGED, [(good, []), (p, [])])
    else:
        out["prepared"] = prepared
    return out


# name, statement, code
REFUSED = [
    ("syntax", "INSERT INTO KS.items (id, n) VALUES ('bad', 1", SYNTAX),
    ("type", "INSERT INTO KS.items (id, n) VALUES ('bad', 'x')", INVALID),
    ("table of the target", "INSERT INTO KS.only_there (id) VALUES ('bad')", INVALID),
    ("column of the target", "UPDATE KS.items SET only_there = 'x' WHERE id = 'bad'", INVALID),
    ("DELETE on a table of the target", "DELETE FROM KS.only_there WHERE id = 'kept'", INVALID),
]


def test_refused_statements_leave_nothing(make_agent, target, keyspace, rows):
    target.run(
        f"CREATE TABLE {keyspace}.only_there (id text PRIMARY KEY)",
        f"INSERT INTO {keyspace}.only_there (id) VALUES ('kept')",
        f"ALTER TABLE {keyspace}.items ADD only_there text",
    )
    try:
        agent = start(make_agent)
        for version in (3, 4, 5):
            refused(connect(agent, version), keyspace)
        delivered(agent)
        there = rows.there()
        assert [k[1][0] for k in there if k[0] == "items"] == [b"last"], there
        assert [k[1] for k in there if k[0] == "only_there"] == [(b"kept",)]
        assert agent.metric("cqlferry_mirror_refused_total") >= 3 * len(REFUSED), "what was refused is counted"
        assert agent.metric("cqlferry_unmirrored_total") == 0
    finally:
        target.run(f"DROP TABLE {keyspace}.only_there", f"ALTER TABLE {keyspace}.items DROP only_there")


def refused(c, keyspace):
    """All that is refused in one protocol version, and then one write that is not."""
    for name, text, code in REFUSED:
        for form, answer in forms(c, keyspace, text.replace("KS", keyspace)).items():
            assert answer.code == code, f"v{c.version} {name}, {form}: {answer}"
    # Values that do not fit are found only when it is executed.
    p = c.prepared(f"INSERT INTO {keyspace}.items (id, n) VALUES (?, ?)")
    assert c.execute(p, [b"bad", b"\0\0"]).code == INVALID
    assert c.batch(cqlwire.LOGGED, [(p, [b"bad", b"\0\0\0\1"]), (p, [b"bad", b"\0"])]).code == INVALID
    # Not enough replicas for the consistency level.
    assert c.query(f"INSERT INTO {keyspace}.items (id, n) VALUES ('bad', 1)", consistency="TWO").code == UNAVAILABLE
    assert c.execute(p, [b"bad", b"\0\0\0\1"], consistency="TWO").code == UNAVAILABLE
    assert c.query(f"TRUNCATE {keyspace}.only_there").code == INVALID
    assert c.query(f"INSERT INTO {keyspace}.items (id, n) VALUES ('last', 1)").code is None
    c.close()


def test_a_table_that_the_origin_lost_meanwhile(make_agent, clusters, keyspace, rows):
    """Prepared while both had it: the target could still run it."""
    shared.on_both(clusters, f"CREATE TABLE {keyspace}.passing (id text PRIMARY KEY, n int)")
    agent = start(make_agent)
    c = connect(agent)
    p = c.prepared(f"INSERT INTO {keyspace}.passing (id, n) VALUES (?, ?)")
    assert c.execute(p, [b"before", b"\0\0\0\1"]).code is None
    delivered(agent)
    clusters[0].run(f"DROP TABLE {keyspace}.passing")
    assert c.execute(p, [b"after", b"\0\0\0\2"]).code in (UNPREPARED, INVALID)
    assert c.batch(cqlwire.LOGGED, [(p, [b"after", b"\0\0\0\2"])]).code in (UNPREPARED, INVALID)
    assert c.query(f"INSERT INTO {keyspace}.items (id, n) VALUES ('last', 1)").code is None
    c.close()
    delivered(agent)
    assert [k for k in rows.there() if k[0] == "passing"] == [("passing", (b"before",))]
    clusters[1].run(f"DROP TABLE {keyspace}.passing")


def test_unauthorized_on_the_origin(make_agent, origin, target, keyspace, rows):
    """The agent's own role could write on both clusters; the client's cannot, and stays itself."""
    origin.run(
        f"CREATE ROLE IF NOT EXISTS {READER} WITH PASSWORD = '{READER}' AND LOGIN = true",
        f"GRANT SELECT ON ALL KEYSPACES TO {READER}",
    )
    try:
        agent = start(make_agent)
        c = connect(agent, user=READER)
        for form, answer in forms(c, keyspace, f"INSERT INTO {keyspace}.items (id, n) VALUES ('bad', 1)").items():
            assert answer.code == UNAUTHORIZED, f"{form}: {answer}"
        for text in (
            f"TRUNCATE {keyspace}.items",
            f"DROP TABLE {keyspace}.items",
            f"CREATE TABLE {keyspace}.mine (id int PRIMARY KEY)",
            f"ALTER TABLE {keyspace}.items ADD x int",
            f"UPDATE {keyspace}.items SET n = 1 WHERE id = 'bad' IF n = null",
        ):
            answer = c.query(text)
            assert answer.code == UNAUTHORIZED, f"{text}: {answer}"
        assert c.query(f"SELECT * FROM {keyspace}.items").kind == cqlwire.ROWS
        c.close()
        c = connect(agent)
        assert c.query(f"INSERT INTO {keyspace}.items (id, n) VALUES ('last', 1)").code is None
        c.close()
        delivered(agent)
        assert [k for k in rows.there() if k[0] == "items"] == [("items", (b"last",))]
        assert "mine" not in rows.target.tables(keyspace)
    finally:
        origin.run(f"DROP ROLE {READER}")


def test_refused_schema_changes(make_agent, origin, target, keyspace, rows):
    """What is there already on the origin is not made on the target; configurations that it refuses neither."""
    agent = start(make_agent)
    origin.run(f"CREATE TABLE {keyspace}.here (id int PRIMARY KEY)", f"CREATE TYPE {keyspace}.kind (x int)")
    c = connect(agent)
    for text, code in (
        (f"CREATE TABLE {keyspace}.here (id int PRIMARY KEY, more text)", EXISTS),
        (f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 3}}", EXISTS),
        (f"CREATE KEYSPACE {keyspace}_bad WITH replication = {{'class': 'NoSuchStrategy'}}", CONFIG),
        (f"ALTER TABLE {keyspace}.items WITH gc_grace_seconds = -5", CONFIG),
        (f"CREATE TYPE {keyspace}.kind (x int, y int)", INVALID),
        (f"DROP TABLE {keyspace}.nothing", INVALID),
    ):
        answer = c.query(text)
        assert answer.code == code, f"{text}: {answer}"
    assert c.query(f"INSERT INTO {keyspace}.items (id, n) VALUES ('last', 1)").code is None
    c.close()
    delivered(agent)
    assert "here" not in rows.target.tables(keyspace)
    assert target.run(f"SELECT type_name FROM system_schema.types WHERE keyspace_name = '{keyspace}'") == []
    assert target.run(f"SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}_bad'") == []
    replication = target.run(f"SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}'")[0][0]
    assert replication["replication_factor"] == "1"
    origin.run(f"DROP TABLE {keyspace}.here", f"DROP TYPE {keyspace}.kind")


# ---- unknown


@pytest.fixture
def liar(origin):
    node = faultnode.FaultNode(lab.NODE_IP, (origin.address, 9042))
    yield node
    node.close()


def attempt(c, opcode, body):
    """The error's code; "closed" where the connection ended without an answer."""
    try:
        return c.tell(opcode, body).code
    except (OSError, cqlwire.rawcql.Closed):
        return "closed"


FORMS = ("insert", "update", "delete", "prepared", "batch", "batch text")


def doubtful(c, keyspace, form, key, mark):
    """Sends one write in that form, marked for the faulty node."""
    if form == "insert":
        return attempt(
            c,
            cqlwire.QUERY,
            c.query_body(f"INSERT {mark} INTO {keyspace}.items (id, v, n, note) VALUES ('{key}', 'new', 1, 'x')"),
        )
    if form == "update":
        return attempt(
            c,
            cqlwire.QUERY,
            c.query_body(
                f"UPDATE {mark} {keyspace}.items USING TTL 9000 SET v = 'new', tags = tags + {{'new'}} WHERE id = '{key}'"
            ),
        )
    if form == "delete":
        return attempt(c, cqlwire.QUERY, c.query_body(f"DELETE {mark} FROM {keyspace}.items WHERE id = '{key}'"))
    if form == "batch text":
        return attempt(
            c,
            cqlwire.QUERY,
            c.query_body(
                f"BEGIN BATCH {mark} UPDATE {keyspace}.items SET v = 'new' WHERE id = '{key}'; "
                f"DELETE n FROM {keyspace}.items WHERE id = '{key}'; "
                f"INSERT INTO {keyspace}.events (w, i, v, level) VALUES (1, 1, '{key}', 'new'); APPLY BATCH"
            ),
        )
    p = c.prepared(f"INSERT {mark} INTO {keyspace}.items (id, v, n) VALUES (?, ?, ?)")
    values = [key.encode(), b"new", b"\0\0\0\1"]
    if form == "prepared":
        return attempt(c, cqlwire.EXECUTE, c.execute_body(p, values))
    return attempt(
        c,
        cqlwire.BATCH,
        c.batch_body(cqlwire.LOGGED, [(p, values), (f"DELETE note FROM {keyspace}.items WHERE id = '{key}'", [])]),
    )


@pytest.mark.parametrize("outcome", ["lost"] + ["applied" for _ in mirrored("unknown")])
def test_unknown_outcomes_end_equal(make_agent, clusters, liar, keyspace, rows, outcome):
    """Time-outs, failures and lost connections, each after the origin had carried the write out, or without."""
    keys = [f"{name} {form}" for name in faultnode.UNKNOWN for form in FORMS]
    before = [k for i, k in enumerate(keys) if i % 2 or "delete" in k or "update" in k]  # equal on both
    shared.on_both(
        clusters,
        *[
            f"INSERT INTO {keyspace}.items (id, v, n, note, tags) VALUES ('{k}', 'old', 0, 'old', {{'old'}}) USING TIMESTAMP 1000"
            for k in before
        ],
    )
    agent = start(make_agent, origin=liar)
    c = connect(agent)
    for name in faultnode.UNKNOWN:
        for form in FORMS:
            got = doubtful(c, keyspace, form, f"{name} {form}", f"/*fault:{name},{outcome}*/")
            want = "closed" if name == "closed" else faultnode.ERRORS[name][0]
            assert got == want, f"{name} {form}: the client saw {got}"
            if got == "closed":
                c.close()
                c = connect(agent)
    c.close()
    assert len(liar.met) == len(keys), "not every fault was met"
    assert len(liar.outcomes) == (len(keys) if outcome == "applied" else 0)
    new = sum(1 for (t, _), r in rows.equal(seconds=40).items() if t == "items" and r["v"][0] == b"new")
    assert new == (len(keys) - len(faultnode.UNKNOWN) if outcome == "applied" else 0), "the faulty node did not do as it was told"
    assert agent.metric("cqlferry_mirror_indoubt_records") == 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_second_look_outlives_the_agent(make_agent, origin, target, liar, keyspace, rows, end):
    """Both clusters were without the write at the first look; a hint brings it to the origin while the agent is away. retainMillis: else the write's
    own entry would still be there."""
    agent = start(make_agent, origin=liar, rowSync={"settleMillis": 0}, limits={"retainMillis": 0})
    c = connect(agent)
    for form in FORMS:
        assert doubtful(c, keyspace, form, form, "/*fault:write_timeout,lost*/") == cqlwire.WRITE_TIMEOUT
    c.close()
    lab.wait_until(lambda: agent.metrics()['cqlferry_rowsync_total{result="equal"}'] >= len(FORMS), 20, "the first look at each")
    delivered(agent)
    getattr(agent, end)()
    assert rows.there() == {}
    origin.run(*[f"INSERT INTO {keyspace}.items (id, v) VALUES ('{form}', 'late')" for form in FORMS])
    agent.start()
    found = rows.equal(seconds=20)
    assert [found["items", (form.encode(),)]["v"][0] for form in FORMS] == [b"late"] * len(FORMS)


@pytest.mark.parametrize("name", ["unavailable", "bootstrapping"])
def test_refused_by_a_node_that_could_not(make_agent, liar, keyspace, rows, name):
    agent = start(make_agent, origin=liar)
    c = connect(agent)
    for form in FORMS:
        assert doubtful(c, keyspace, form, form, f"/*fault:{name},lost*/") == faultnode.ERRORS[name][0]
    c.close()
    delivered(agent)
    assert rows.there() == {}
    assert agent.metric("cqlferry_unmirrored_total") == 0, "a refused write is no gap"


def test_unavailable_after_a_part_of_it(make_agent, liar, keyspace, rows):
    """A coordinator looks for the replicas of one partition after the other: of several, some may be written when those of the next are away. And what
    a conditional write proposed may have been accepted when there are too few for the commit."""
    mark = "/*fault:unavailable,applied*/"
    agent = start(make_agent, origin=liar)
    c = connect(agent)
    p = c.prepared(f"UPDATE {mark} {keyspace}.items SET v = 'new' WHERE id IN (?, ?)")
    in_parts = [
        attempt(c, cqlwire.QUERY, c.query_body(f"UPDATE {mark} {keyspace}.items SET v = 'new' WHERE id IN ('a', 'b')")),
        attempt(c, cqlwire.EXECUTE, c.execute_body(p, [b"c", b"d"])),
        attempt(
            c,
            cqlwire.BATCH,
            c.batch_body(cqlwire.UNLOGGED, [(f"UPDATE {mark} {keyspace}.items SET v = 'new' WHERE id = '{k}'", []) for k in "ef"]),
        ),
        attempt(
            c,
            cqlwire.QUERY,
            c.query_body(f"BEGIN UNLOGGED BATCH UPDATE {mark} {keyspace}.items SET v = 'new' WHERE id = 'g'; APPLY BATCH"),
        ),
        attempt(c, cqlwire.QUERY, c.query_body(f"INSERT {mark} INTO {keyspace}.items (id, v) VALUES ('h', 'new') IF NOT EXISTS")),
    ]
    c.close()
    assert in_parts == [UNAVAILABLE] * 5
    found = rows.equal(seconds=40)
    assert sorted(k[1][0] for k in found) == [k.encode() for k in "abcdefgh"]
    assert agent.metric("cqlferry_unmirrored_total") == 0


def test_the_second_look_leaves_the_new_primary_alone(make_agent, target, liar, keyspace, rows):
    """Due after the migration is finished, when the origin knows nothing of what the clients write: also in the agent's next life."""
    agent = start(make_agent, origin=liar, rowSync={"settleMillis": 0}, limits={"retainMillis": 0})
    c = connect(agent)
    for form in FORMS:
        assert doubtful(c, keyspace, form, form, "/*fault:write_timeout,lost*/") == cqlwire.WRITE_TIMEOUT
    lab.wait_until(lambda: agent.metrics()['cqlferry_rowsync_total{result="equal"}'] >= len(FORMS), 20, "the first look at each")
    delivered(agent)
    agent.phase("cutover", "--force")
    agent.phase("finish", "--force")
    for form in FORMS:
        shared.good(c.query(f"INSERT INTO {keyspace}.items (id, v) VALUES ('{form}', 'newer')"))
    c.close()
    agent.kill()
    agent.start()
    lab.wait_until(
        lambda: agent.metrics()['cqlferry_unmirrored_total{cause="unknown_outcome"}'] == len(FORMS), 20, "each is on the ledger instead"
    )
    assert sorted(k[1][0] for k in rows.there() if k[0] == "items") == sorted(form.encode() for form in FORMS)


@pytest.mark.skipif(ORIGINS < 2, reason="needs an origin of two nodes: LAB_ORIGINS=2")
@pytest.mark.parametrize("family", mirrored("unknown"))
def test_a_real_write_timeout(make_agent, clusters, origin, rows, family):
    """One of two replicas hangs: the write is on the other one, the client gets a time-out."""
    keyspace = "hanging"
    for cluster, replicas in zip(clusters, (2, 1)):
        cluster.run(
            f"DROP KEYSPACE IF EXISTS {keyspace}",
            f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}",
            f"CREATE TABLE {keyspace}.items (id int PRIMARY KEY, v text)",
        )
    try:
        agent = start(make_agent)
        c, codes = connect(agent), []
        origin.pause(1)
        try:
            for i in range(6):
                codes.append(c.query(f"INSERT INTO {keyspace}.items (id, v) VALUES ({i}, 'in doubt')", consistency="ALL").code)
        finally:
            origin.resume(1)
        c.close()
        assert cqlwire.WRITE_TIMEOUT in codes, codes
        assert len(rows.equal(keyspace, 60)) >= codes.count(cqlwire.WRITE_TIMEOUT)
    finally:
        for cluster in clusters:
            cluster.run(f"DROP KEYSPACE IF EXISTS {keyspace}")


# ---- refused by the target

LIMITED = "limited"  # the mirror's role on the target in these tests
EACH = 30


def dead_letters(agent):
    """{(keyspace, table): how many} of the target's, as `cqlferry gaps` has them."""
    count = {}
    for g in json.loads(agent.cli("gaps", "--json").stdout)["gaps"]:
        if g["cause"] == "dead_letter" and g["missing"] == "target":
            at = (g["keyspace"], g["table"])
            count[at] = count.get(at, 0) + g["count"]
    return count


def test_a_target_that_cannot_is_not_noticed(make_agent, clusters, origin, target, keyspace, rows):
    """Table gone, column gone, no permission, a keyspace that is read-only: the clients' writes go on as before, other tables are
    mirrored at once, and what the target refused is counted and named by `cqlferry gaps`."""
    other = keyspace + "_b"
    shared.on_both(
        clusters, *[f"CREATE TABLE {keyspace}.{t} (id int PRIMARY KEY, v text, w text)" for t in ("gone", "narrow", "denied")]
    )
    target.run(
        f"CREATE ROLE IF NOT EXISTS {LIMITED} WITH PASSWORD = '{LIMITED}' AND LOGIN = true",
        *[f"GRANT {p} ON KEYSPACE {other} TO {LIMITED}" for p in ("SELECT", "MODIFY")],
        f"GRANT SELECT ON ALL KEYSPACES TO {LIMITED}",
        *[f"GRANT MODIFY ON TABLE {keyspace}.{t} TO {LIMITED}" for t in ("gone", "narrow", "denied", "items", "later", "events")],
    )
    try:
        agent = make_agent(start=False, ebpf=False)
        agent.config["target"].update(username=LIMITED, password=LIMITED)
        agent.start()
        agent.phase("mirror", "--force")
        target.run(
            f"DROP TABLE {keyspace}.gone",
            f"ALTER TABLE {keyspace}.narrow DROP w",
            f"REVOKE MODIFY ON TABLE {keyspace}.denied FROM {LIMITED}",
            f"REVOKE MODIFY ON KEYSPACE {other} FROM {LIMITED}",
        )
        probe = cqlwire.Client(target.address, user=LIMITED, password=LIMITED, timeout=30)
        lab.wait_until(
            lambda: all(
                probe.query(q).code == UNAUTHORIZED
                for q in (f"DELETE FROM {keyspace}.denied WHERE id = 0", f"DELETE FROM {other}.items WHERE id = ''")
            ),
            20,
            "the permission is withdrawn",
        )
        probe.close()
        writes = [
            f"INSERT INTO {keyspace}.gone (id, v) VALUES (%d, 'x')",
            f"INSERT INTO {keyspace}.narrow (id, v, w) VALUES (%d, 'x', 'y')",
            f"UPDATE {keyspace}.denied SET v = 'x' WHERE id = %d",
            f"INSERT INTO {other}.items (id, n) VALUES ('r%d', 1)",
        ]
        c, slowest, began = connect(agent), 0.0, time.time()
        for i in range(EACH):
            for text in writes + [f"INSERT INTO {keyspace}.items (id, n) VALUES ('fine%d', 1)"]:
                at = time.time()
                answer = c.query(text % i)
                slowest = max(slowest, time.time() - at)
                assert answer.code is None, f"{text}: {answer}"
        c.close()
        lab.wait_until(
            lambda: len(rows.target.rows(keyspace, "items", ["id"], [("n", "int")])) == EACH,
            10,
            "the other table is mirrored at once",
        )
        fine_after = time.time() - began
        assert slowest < 1, f"a client waited {slowest:.2f} s for its answer"
        lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 60, "the refused writes are given up")
        metrics = agent.metrics()
        assert metrics['cqlferry_unmirrored_total{cause="dead_letter"}'] == EACH * len(writes)
        # The ledger's entries follow within a second or so.
        want = {(keyspace, "gone"): EACH, (keyspace, "narrow"): EACH, (keyspace, "denied"): EACH, (other, "items"): EACH}
        lab.wait_until(
            lambda: dead_letters(agent) == want, 15, lambda: f"gaps of {want}; there are {dead_letters(agent)}", step=0.5
        )
        for at in want:
            listed = agent.cli("gaps", "--table", ".".join(at)).stdout
            assert ".".join(at) in listed and "dead_letter" in listed
        here = origin.run(f"SELECT count(*) FROM {keyspace}.narrow")[0][0]
        assert here == EACH and fine_after < 15
    finally:
        target.run(f"DROP ROLE {LIMITED}")
