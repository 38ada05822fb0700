# SPDX-License-Identifier: Apache-2.0
"""Unmodified clients in a pod that dial a Cassandra node's own 10.x address: they must not be able to tell."""
import json
import os
import sys

import lab
import pytest

PEERS = """
import json, socket, sys
from cassandra.cluster import Cluster
from cassandra.auth import PlainTextAuthProvider
host, version, compression, keyspace = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
more = {"compression": False if compression == "none" else compression}
cluster = Cluster([host], protocol_version=version, auth_provider=PlainTextAuthProvider("cassandra", "cassandra"), **more)
session = cluster.connect(keyspace)
connections = [cluster.control_connection._connection]
for pool in session._pools.values():
    connections += [pool._connection] if hasattr(pool, "_connection") else list(pool._connections)
insert = session.prepare("INSERT INTO items (id, v, n) VALUES (?, ?, ?)")
for i in range(50):
    session.execute(insert, (f"peer{i}", "x" * (i * 40), i))
rows = {r.id: r.n for r in session.execute("SELECT id, n FROM items")}
assert rows == {f"peer{i}": i for i in range(50)}, rows
seen = [(str(r.address), r.protocol_version, r.driver_name) for r in
        session.execute("SELECT address, protocol_version, driver_name FROM system_views.clients")]
print(json.dumps({"peers": sorted({c._socket.getpeername()[0] for c in connections}),
                  "versions": sorted({c.protocol_version for c in connections}),
                  "compression": sorted({str(c._compression_type) for c in connections}),
                  "hosts": sorted(h.address for h in cluster.metadata.all_hosts()), "seen": seen}))
cluster.shutdown()
"""


@pytest.fixture
def mirroring(agent):
    agent.phase("mirror")
    return agent


QUICK = pytest.mark.quick


@pytest.mark.parametrize("version, compression", [
    pytest.param(3, "none", marks=QUICK), (3, "lz4"), (4, "none"), pytest.param(4, "lz4", marks=QUICK),
    pytest.param(5, "none", marks=QUICK), pytest.param(5, "lz4", marks=QUICK)])
def test_python_driver(mirroring, pod, origin, keyspace, equal, version, compression):
    r = json.loads(pod.python(PEERS, origin.address, str(version), compression, keyspace).stdout)
    assert r["peers"] == [origin.address] or set(r["peers"]) <= set(origin.addresses), "getpeername gave another address"
    assert r["versions"] == [version]
    assert r["compression"] == [str(None if compression == "none" else compression)]
    assert set(r["hosts"]) == set(origin.addresses), "the driver sees another topology"
    # The proof that it went through the agent: Cassandra saw the node's address and not the pod's.
    addresses = {a for a, _, name in r["seen"] if name}
    assert pod.address not in addresses, "the connection went past the agent"
    assert lab.NODE_IP in addresses
    result = equal(keyspace)
    assert result.rows == 50


@QUICK
def test_every_kind_of_statement(mirroring, pods, origin, keyspace, equal):
    """v3, v4 and v5 and cqlsh at once, each statement kind of the plan, with and without compression and timestamps."""
    loads = [lab.Load(pods[v - 3], origin.address, keyspace, prefix=f"v{v}", protocol=v, writers=12, rate=12, seconds=7,
                      compression=("none", "any")[v % 2]) for v in (3, 4, 5)]
    loads.append(lab.Load(pods[0], origin.address, keyspace, prefix="sh", program="cqlsh_writer.py", rate=15, seconds=6))
    for load in loads:
        load.process.wait(90)
        stat = load.stop()
        assert stat["errors"] == 0, stat["causes"]
        assert stat["acknowledged"] > (300 if "protocol" in load.options else 20)
    equal(keyspace, loads)
    assert mirroring.metric("cqlferry_unmirrored_total") == 0


@QUICK
def test_accelerated(make_agent, pods, origin, keyspace, equal):
    """sk_msg forced on, whatever the probe says of this kernel: the same data as over TCP, and bytes did go that way."""
    agent = make_agent(intercept={"acceleration": "on"})
    agent.phase("mirror")
    assert agent.status()["interception"]["acceleration"] == "on"
    loads = [lab.Load(pods[v - 3], origin.address, keyspace, prefix=f"acc{v}", protocol=v, writers=8, rate=12, seconds=5,
                      compression=("none", "any")[v % 2], size=(0, 20000, 0)[v - 3]) for v in (3, 4, 5)]
    for load in loads:
        load.process.wait(90)
        stat = load.stop()
        assert stat["errors"] == 0, stat["causes"]
        assert stat["acknowledged"] > 100
    equal(keyspace, loads)
    assert agent.counter("accelerated") > 0
    assert agent.counter("messages_redirected") > 100


@QUICK
def test_cqlsh_once(mirroring, pod, origin, keyspace, equal):
    cqlsh = os.path.join(os.path.dirname(sys.executable), "cqlsh")
    script = (f"USE {keyspace}; INSERT INTO items (id, v) VALUES ('one', 'cqlsh''s'); "
              "BEGIN BATCH INSERT INTO items (id, n) VALUES ('two', 2); UPDATE items SET n = 3 WHERE id = 'one'; APPLY BATCH; "
              "CONSISTENCY; SELECT id, n FROM items;")
    env = dict(os.environ, HOME=os.environ["TMPDIR"], PYTHONWARNINGS="ignore")
    r = pod.run([cqlsh, "--no-color", "-u", lab.USER, "-p", lab.PASSWORD, "-e", script, origin.address], env=env)
    assert "one" in r.stdout and "two" in r.stdout, r.stdout + r.stderr
    assert equal(keyspace).rows == 2


@QUICK
def test_getpeername_of_a_plain_socket(mirroring, pod, origin):
    """The address that the program asked for, IPv4 and IPv4-mapped; blocking and not."""
    source = """
import errno, select, socket, sys
host = sys.argv[1]
def options(s):
    s.sendall(bytes([4, 0, 0, 1, 5, 0, 0, 0, 0]))
    s.settimeout(10)
    return s.recv(9)[4] == 6
s = socket.create_connection((host, 9042), 10)
assert s.getpeername() == (host, 9042), s.getpeername()
assert options(s)
s = socket.socket(socket.AF_INET6)
s.settimeout(10)
s.connect(("::ffff:" + host, 9042))
assert s.getpeername()[:2] == ("::ffff:" + host, 9042), s.getpeername()
assert options(s)
s = socket.socket()
s.setblocking(False)
assert s.connect_ex((host, 9042)) == errno.EINPROGRESS
select.select([], [s], [], 10)
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
assert s.getpeername() == (host, 9042), s.getpeername()
s.setblocking(True)
assert options(s)
"""
    before = mirroring.metric("cqlferry_sessions_opened_total")
    pod.python(source, origin.address)
    assert mirroring.metric("cqlferry_sessions_opened_total") == before + 3


@QUICK
def test_observing_leaves_connections_direct(agent, pod, origin, keyspace):
    assert agent.metrics()["cqlferry_phase"] == 0
    pod.python("import rawcql, sys; rawcql.Client(sys.argv[1]).query('SELECT key FROM system.local')", origin.address)
    assert agent.metric("cqlferry_sessions_opened_total") == 0
    assert 'verdict="redirected"' not in [k for k, v in agent.metrics().items() if v]
