# SPDX-License-Identifier: Apache-2.0
"""Bad input and dead clusters: a clear message and a counter, never a crash or a hang, and the others do not notice."""
import time

import lab
import pytest

pytestmark = pytest.mark.quick


@pytest.fixture
def mirroring(agent):
    agent.phase("mirror")
    return agent


MALFORMED = r"""
import os, random, socket, struct, sys
import rawcql
host = sys.argv[1]
rng = random.Random(7)

def fresh(startup=True):
    return rawcql.Client(host, startup=startup, timeout=10)

def outcome(c):
    # an ERROR frame, or closed; never silence
    c.socket.settimeout(8)
    try:
        _, _, _, op, body = c.receive()
        return "error" if op == rawcql.ERROR else f"opcode {op}"
    except (rawcql.Closed, ConnectionError):
        return "closed"
    except TimeoutError:
        return "silence"

def case(name, expected, startup, *chunks):
    c = fresh(startup)
    try:
        for chunk in chunks:
            c.socket.sendall(chunk(c) if callable(chunk) else chunk)
        got = outcome(c)
    except (BrokenPipeError, ConnectionResetError):
        got = "closed"
    print(f"{name}: {got}", flush=True)
    assert got in expected, (name, got)
    c.close()

E, C = ("error",), ("error", "closed")
frame = lambda op, body, **more: lambda c: c.frame(op, body, 1, **more)
case("garbage after start-up", C, True, bytes(rng.randrange(256) for _ in range(4096)))
case("version 66 (no one speaks it)", E, False, lambda c: c.frame(rawcql.OPTIONS, b"", 1, version=66))
case("version 1", C, False, lambda c: c.frame(rawcql.OPTIONS, b"", 1, version=1))
case("unknown opcode", C, True, frame(0x7F, b"abc"))
case("a response opcode from a client", C, True, frame(rawcql.RESULT, b"\0\0\0\1"))
case("QUERY without a body", E, True, frame(rawcql.QUERY, b""))
case("QUERY whose string is longer than the body", E, True, frame(rawcql.QUERY, struct.pack(">i", 1000) + b"SELECT"))
case("QUERY with a negative length", E, True, frame(rawcql.QUERY, struct.pack(">i", -5) + b"SELECT"))
case("EXECUTE cut in its values", E, True, frame(rawcql.EXECUTE, rawcql.short(4) + b"abcd" + struct.pack(">HB", 1, 1) + rawcql.short(9)))
case("BATCH of 65535 statements that are not there", E, True, frame(rawcql.BATCH, b"\0" + rawcql.short(65535)))
case("a body of 2 GiB announced", C, True, frame(rawcql.QUERY, b"x", length=0x7fffffff))
case("a body of 4 GiB announced", C, True, frame(rawcql.QUERY, b"x", length=0xffffffff))
case("compressed without compression", C, True, frame(rawcql.QUERY, b"\xff" * 50, flags=1))
case("STARTUP without a map", C, False, lambda c: c.frame(rawcql.STARTUP, b"", 1))
# Truncated: half a frame and the connection closed. Nobody is left to tell; the agent must only survive.
for cut in (1, 5, 8, 9, 12):
    c = fresh()
    c.socket.sendall(c.frame(rawcql.QUERY, rawcql.long_string("SELECT now() FROM system.local") + b"\0\1\0", 1)[:cut])
    c.close()
# and many mutations of a good frame
good = rawcql.long_string("SELECT key FROM system.local") + b"\0\1\0"
for i in range(60):
    c = fresh(startup=i % 2 == 0)
    data = bytearray(c.frame(rawcql.QUERY, good, 1))
    for _ in range(rng.randrange(1, 5)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    c.socket.sendall(bytes(data))
    c.close()
print("done")
"""


def test_malformed_frames(mirroring, pods, origin, keyspace, equal):
    load = lab.Load(pods[1], origin.address, keyspace, prefix="calm", protocol=5, writers=4, rate=20)
    load.wait_running(50)
    bad = mirroring.metric("cqlferry_bad_frames_total")
    r = pods[0].python(MALFORMED, origin.address, timeout=240, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    assert mirroring.alive()
    assert mirroring.metric("cqlferry_bad_frames_total") > bad
    load.wait_running(50)
    stat = load.stop()
    assert stat["errors"] == 0, stat["causes"]
    assert stat["longest_ms"] < 3000
    equal(keyspace, [load])
    lab.wait_until(lambda: mirroring.metric("cqlferry_sessions") <= 2, 10,
                   lambda: f"sessions of dead clients to go: {mirroring.metric('cqlferry_sessions')} left")


def test_an_oversized_frame(make_agent, pod, origin):
    agent = make_agent(limits={"frameBytes": "64KiB"})
    agent.phase("mirror")
    r = pod.python("""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
try:
    c.query("INSERT INTO system_traces.x (a) VALUES ('" + "x" * 100000 + "')")
    print("accepted")
except rawcql.CqlError as e:
    print("error", hex(e.code), e.text)
except (rawcql.Closed, ConnectionError):
    print("closed")
other = rawcql.Client(sys.argv[1])
other.query("SELECT key FROM system.local")
print("others live")
""", origin.address)
    first, last = r.stdout.strip().splitlines()
    assert first.startswith("error") and last == "others live", r.stdout
    assert agent.metric('cqlferry_requests_refused_total{reason="too_large"}') + agent.metric("cqlferry_bad_frames_total") > 0


def test_a_connection_of_unknown_origin_is_refused(mirroring, pod, origin):
    """Somebody dials the agent's own port: there is no destination to go to, and none is guessed."""
    r = pod.python(f"""
import rawcql
c = rawcql.Client("{lab.NODE_IP}", 19042, startup=False)
try:
    c.send(rawcql.OPTIONS, b"")
except OSError:
    pass
print("closed" if c.at_end() else "open")
""")
    assert r.stdout.strip() == "closed"
    assert mirroring.metric("cqlferry_sessions_unattributed_total") >= 1


def test_second_agent_on_the_node(mirroring, make_agent, pod, origin):
    second = make_agent(start=False)
    second.config = lab.merge(mirroring.config, {"admin": {"socket": second.socket}, "http": {"port": 0}})
    second.start(ready=False)
    try:
        assert second.process.wait(15) != 0, "a second agent on one node"
    finally:
        second.kill()
    log = second.log()
    assert "another agent" in log or "already" in log, log
    assert mirroring.alive()
    pod.python("import rawcql, sys; rawcql.Client(sys.argv[1]).query('SELECT key FROM system.local')", origin.address)


def test_target_down_at_start(make_agent, pod, origin, target, keyspace):
    target.stop()
    try:
        agent = make_agent()
        pod.python("import rawcql, sys; rawcql.Client(sys.argv[1]).query('SELECT key FROM system.local')", origin.address)
        r = agent.phase("mirror", check=False)
        assert r.returncode != 0, "mirroring to a target that is down"
        assert target.address in (r.stdout + r.stderr), r.stdout + r.stderr
        assert agent.metrics()["cqlferry_phase"] == 0
    finally:
        target.restart()
    lab.wait_until(lambda: agent.phase("mirror", check=False).returncode == 0, 30, "mirror once the target is back", step=1)


@pytest.mark.parametrize("how", ["stops", "hangs"])
def test_target_away_and_back(mirroring, pod, origin, target, keyspace, equal, how):
    """The origin path does not notice; what was written meanwhile arrives. (Not by SIGKILL: a killed node forgets what it
    acknowledged in its last 100 ms, the distance of its commit log's markers.)"""
    load = lab.Load(pod, origin.address, keyspace, prefix="down", protocol=4, writers=4, rate=15)
    load.wait_running(60)
    if how == "stops":
        target.stop()
    else:
        target.pause()
    try:
        load.wait_running(150)
        assert mirroring.metric("cqlferry_mirror_backlog_records") > 0
    finally:
        if how == "stops":
            target.restart()
        else:
            target.resume()
    load.wait_running(60)
    stat = load.stop()
    assert stat["errors"] == 0, stat["causes"]
    assert stat["longest_ms"] < 3000, "a slow target slowed the origin's path"
    lab.wait_until(lambda: mirroring.metric("cqlferry_mirror_backlog_records") == 0, 60, "the backlog to be worked off")
    equal(keyspace, [load])
    assert mirroring.metric("cqlferry_unmirrored_total") == 0


def test_origin_dead(mirroring, pod, origin, keyspace):
    """As it would be without us: the connection fails, soon and clearly; when the origin is back, all works again."""
    origin.stop(kill=True)
    try:
        began = time.time()
        r = pod.python("""
import rawcql, sys
try:
    rawcql.Client(sys.argv[1], timeout=12).query("SELECT key FROM system.local")
    print("answered")
except rawcql.CqlError as e:
    print("error", e)
except (rawcql.Closed, ConnectionError) as e:
    print("closed", type(e).__name__)
except TimeoutError:
    print("hung")
""", origin.address)
        assert r.stdout.split()[0] in ("error", "closed"), r.stdout
        assert time.time() - began < 10
        assert mirroring.alive()
    finally:
        origin.restart()
    pod.python("import rawcql, sys; rawcql.Client(sys.argv[1]).query('SELECT key FROM system.local')", origin.address)


def test_wrong_configuration_is_named(make_agent, origin, target):
    agent = make_agent(start=False, intercept={"acceleratoin": "on"})
    agent.start(ready=False)
    assert agent.process.wait(10) != 0
    log = agent.log()
    assert "acceleratoin" in log and "acceleration" in log and agent.config_path + ":" in log, log
