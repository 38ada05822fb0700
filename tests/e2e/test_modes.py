# SPDX-License-Identifier: Apache-2.0
"""Connection modes: unmodified programs in pods of a node from which replicas cannot be reached."""
import os
import subprocess
import sys
import time

import lab
import modeslab
import pytest

quick = pytest.mark.quick

CQLSH = os.path.join(os.path.dirname(sys.executable), "cqlsh")
QUICK_ROWS = 20000
FEW_ROWS = 2000

WARNING = ("Warning: Cannot connect directly to replica nodes. Falling back to proxy mode through control host (slower but functional). "
           "Hint: Use CONNECTIONMODE='proxy' to suppress this warning.")
NOTE = ("Note: Running in proxy mode. All data will be routed through a single connection. This may be slower than direct mode for large "
        "datasets. For best performance with accessible nodes, use CONNECTIONMODE='direct'.")


@pytest.fixture(scope="module", autouse=True)
def tables(ring):
    """At RF 1: half of each table is on a replica that the agent's node will not reach."""
    ring.run("DROP KEYSPACE IF EXISTS ks", "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
             "CREATE TABLE ks.items (id int PRIMARY KEY, a text, b int)", "CREATE TABLE ks.copied (id int PRIMARY KEY, a text, b int)")


@pytest.fixture
def make(make_agent, ring, target):
    """make(**connection): an agent for the ring that relays while it observes."""

    def one(settings=None, ebpf=True, **connection):
        return make_agent(origin=ring, target=target, ebpf=ebpf, connection={"whileObserving": True, **connection}, settings=settings or {})

    return one


def cqlsh(pod, cluster, statement, timeout=180, check=True):
    env = dict(os.environ, HOME=lab.RUN, PYTHONWARNINGS="ignore")
    r = pod.run([CQLSH, "-u", lab.USER, "-p", lab.PASSWORD, "--insecure-password-without-warning", "--request-timeout", "60", cluster.address, "-e",
                 statement], timeout=timeout, check=False, env=env)
    if check:
        assert r.returncode == 0 and "rror" not in r.stderr and "Failed" not in r.stderr, f"{r.stdout}\n{r.stderr}"
    return r


def fill(pod, ring, rows):
    path = os.path.join(lab.RUN, f"in-{rows}.csv")
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(f"{i},row {i},{i * 2}\n" for i in range(rows)))
    return path


def lines(path):
    with open(path, encoding="utf-8") as f:
        return sorted(f.read().splitlines())


def both_ways(pod, ring, rows, name):
    """COPY FROM and COPY TO by an unmodified cqlsh; how long each took."""
    source, result = fill(pod, ring, rows), os.path.join(lab.RUN, f"out-{name}.csv")
    began = time.time()
    r = cqlsh(pod, ring, f"COPY ks.copied (id, a, b) FROM '{source}'")
    assert f"{rows} rows imported from 1 files" in r.stdout, r.stdout
    middle = time.time()
    r = cqlsh(pod, ring, f"COPY ks.copied (id, a, b) TO '{result}'")
    assert f"{rows} rows exported to 1 files" in r.stdout, r.stdout
    assert lines(source) == lines(result)
    print(f"{name}: {rows} rows in {middle - began:.1f} s, out {time.time() - middle:.1f} s")


@quick
@pytest.mark.parametrize("how", modeslab.CUTS)
def test_an_unmodified_cqlsh_copies(make, pod, ring, how):
    """The second replica cannot be reached, neither from the pod nor from the agent."""
    agent = make()
    replica = f"{ring.addresses[1]}:9042"
    ring.run("TRUNCATE ks.copied")
    with modeslab.Cut(how, ring.addresses[1:], (None, pod.name)):
        both_ways(pod, ring, QUICK_ROWS, how)
        modeslab.assert_fell_back(agent, replica)
    log = agent.log()
    assert log.count(WARNING) == 1
    assert log.count(f"CQL connection fallback: replica {replica} unreachable, using control host {ring.address}:9042") == 1, log


@pytest.mark.parametrize("how", modeslab.CUTS)
def test_an_unmodified_cqlsh_copies_a_large_table(make, pod, ring, how):
    make()
    ring.run("TRUNCATE ks.copied")
    with modeslab.Cut(how, ring.addresses[1:], (None, pod.name)):
        both_ways(pod, ring, 100000, f"large-{how}")


@pytest.mark.parametrize("how", ["drop", pytest.param("reject", marks=quick), "unroutable"])
def test_what_happens_without(pod, ring, how):
    """The same programs and the same cut, and nobody intercepts: half of the table is missing, and cqlsh says so."""
    source, result = fill(pod, ring, QUICK_ROWS), os.path.join(lab.RUN, f"without-{how}.csv")
    ring.run("TRUNCATE ks.copied")
    cqlsh(pod, ring, f"COPY ks.copied (id, a, b) FROM '{source}'")
    began = time.time()
    with modeslab.Cut(how, ring.addresses[1:], (pod.name,)):
        r = cqlsh(pod, ring, f"COPY ks.copied (id, a, b) TO '{result}'", timeout=400, check=False)
    rows = len(lines(result)) if os.path.exists(result) else 0
    print(f"without, {how}: {rows} of {QUICK_ROWS} rows after {time.time() - began:.0f} s, exit {r.returncode}: {r.stderr[-300:]}")
    assert 0 < rows < QUICK_ROWS and r.returncode != 0 and "permanently given up" in r.stderr, r.stderr


# ---- drivers

DRIVER = """
import sys, time
from cassandra.cluster import Cluster
from cassandra.auth import PlainTextAuthProvider
cluster = Cluster([sys.argv[1]], auth_provider=PlainTextAuthProvider("cassandra", "cassandra"), connect_timeout=10)
session = cluster.connect("ks")
deadline = time.time() + 20
while sum(bool(h.is_up) for h in cluster.metadata.all_hosts()) < 2 or len(session.get_pool_state()) < 2:
    assert time.time() < deadline, (cluster.metadata.all_hosts(), session.get_pool_state())
    time.sleep(0.1)
insert, select = session.prepare("INSERT INTO items (id, a, b) VALUES (?, ?, ?)"), session.prepare("SELECT b FROM items WHERE id = ?")
for i in range(400):
    session.execute(insert, (i, "x" * i, i))
assert [session.execute(select, (i,)).one().b for i in range(400)] == list(range(400))
assert session.execute("SELECT count(*) FROM items").one()[0] == 400
print(sorted(str(h.address) for h in session.get_pool_state()))
cluster.shutdown()
"""


@quick
@pytest.mark.parametrize("how", modeslab.CUTS)
def test_an_unmodified_driver(make, pod, ring, how):
    """It has pools to both nodes, and writes and reads through either."""
    agent = make()
    with modeslab.Cut(how, ring.addresses[1:], (None, pod.name)):
        out = pod.python(DRIVER, ring.address).stdout.strip()
        modeslab.assert_fell_back(agent, f"{ring.addresses[1]}:9042")
    assert out == str(sorted(ring.addresses))


MANY = """
import concurrent.futures, rawcql, sys, time
def one(_):
    began = time.time()
    rawcql.Client(sys.argv[1]).query("SELECT key FROM system.local")
    return time.time() - began
with concurrent.futures.ThreadPoolExecutor(50) as pool:
    for i in range(2):
        print(max(pool.map(one, range(50))))
"""


@quick
def test_many_connections_cost_one_time_out_and_return(make, pod, ring):
    """50 connections at once to a replica that drops packets; then it is back, and connections go to it again."""
    replica = f"{ring.addresses[1]}:9042"
    agent = make(firstTimeoutMillis=1500, probeMillis=1000)
    with modeslab.Cut("drop", ring.addresses[1:]):
        first, second = [float(x) for x in pod.python(MANY, ring.addresses[1], timeout=100).stdout.split()]
        print(f"the slowest of 50 connections: {first:.2f} s, of 50 later ones: {second:.2f} s")
        metrics = agent.metrics()
        assert first >= 1.4 and second < first
        assert metrics['cqlferry_dials_way_total{way="fallback"}'] == 100, metrics
        # One for all of them, and what probes came since.
        assert metrics['cqlferry_trials_total{result="failed"}'] <= 1 + (first + second) / 1.0, metrics
        assert agent.log().count(f"replica {replica} unreachable") == 1
    lab.wait_until(lambda: f"replica {replica} of the origin answers: new connections go straight to it" in agent.log(), 40, agent.log)
    before = agent.metrics()['cqlferry_dials_way_total{way="replica"}']
    pod.python(MANY, ring.addresses[1], timeout=100)
    assert agent.metrics()['cqlferry_dials_way_total{way="replica"}'] == before + 100


ASK = """
import rawcql, sys
try:
    op, body = rawcql.Client(sys.argv[1]).query("SELECT rpc_address FROM system.local")
    print(".".join(str(b) for b in body[-4:]))
except rawcql.CqlError as e:
    print(hex(e.code), e.text)
"""


@quick
def test_direct_proxy_and_overrides(make, pod, ring):
    """direct: the document's error; proxy: the control host answers for every replica, and nobody tries; an override beats either."""
    first, second = ring.addresses
    with modeslab.Cut("drop", [second]):
        agent = make(mode="direct", settings={"limits": {"dialTimeoutMillis": 1000}})
        assert pod.python(ASK, first).stdout.strip() == first
        out = pod.python(ASK, second).stdout
        assert (f"Error: Cannot connect to replica node {second}:9042 (unreachable).\n"
                "This may occur in cloud or containerized environments where node IPs are not directly accessible.\n"
                "Hint: Try CONNECTIONMODE='auto' or CONNECTIONMODE='proxy' to route through the control connection.") in out, out
        agent.remove()

        agent = make(mode="direct", overrides=[f"{second}/32=proxy"])
        assert pod.python(ASK, second).stdout.strip() == first
        agent.remove()

    agent = make(mode="proxy", controlHosts=[first])
    assert NOTE in agent.log()
    assert {pod.python(ASK, a).stdout.strip() for a in ring.addresses} == {first}
    metrics = agent.metrics()
    assert metrics['cqlferry_dials_way_total{way="control"}'] == 1 and metrics['cqlferry_dials_way_total{way="fallback"}'] == 0
    assert agent.metric("cqlferry_trials_total") == 0 and agent.status()["connections"]["mode"] == "proxy"


# ---- what stands in front of nodes

def copy(pod, ring, rows, host, name):
    """`cqlferry copy` from the agent's node: both ways, with the document's warning."""
    path = os.path.join(lab.RUN, f"ferry-{name}.csv")
    for args in (["to", "ks.copied", path], ["from", "ks.copied", path]):
        r = subprocess.run([lab.BINARY, "copy", *args, "--host", host, "--connect-timeout", "2", "-u", lab.USER, "-p", lab.PASSWORD],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        assert r.returncode == 0 and f"{rows} rows" in r.stdout, f"{r.stdout}\n{r.stderr}"
        assert "Falling back to proxy mode through control host" in r.stderr, r.stderr


@pytest.fixture(scope="module")
def edge():
    """A pod for what stands between the agent's node and the ring."""
    return lab.Pod("edge", "10.77.0.70")


@quick
def test_a_load_balancer_hides_the_nodes(make, pod, ring, edge):
    """HAProxy's address is all that can be reached; drivers learn the nodes' own from it."""
    ring.run("TRUNCATE ks.copied")
    balancer = modeslab.Balancer(edge, ring.addresses)
    front = Front(edge.address)
    agent = make(settings={"origin": {"contactPoints": [edge.address]}})
    try:
        with modeslab.Cut("drop", ring.addresses, (None, pod.name)):
            both_ways(pod, front, FEW_ROWS, "balancer")
            copy(pod, ring, FEW_ROWS, edge.address, "balancer")
        assert f"using control host {edge.address}:9042" in agent.log(), agent.log()
    finally:
        agent.stop()
        balancer.stop()


class Front:
    """Stands where a cluster is expected: whom a program is pointed at."""

    def __init__(self, address):
        self.address = address


@quick
def test_a_sidecar_passes_on_what_it_may(make, pod, ring):
    """Every connect succeeds, also to the node that the mesh does not let us reach."""
    ring.run("TRUNCATE ks.copied")
    sidecar = modeslab.Sidecar(ring.addresses, ring.addresses[:1])
    agent = make()
    try:
        both_ways(pod, ring, FEW_ROWS, "sidecar")
        copy(pod, ring, FEW_ROWS, ring.address, "sidecar")
        modeslab.assert_fell_back(agent, f"{ring.addresses[1]}:9042")
    finally:
        agent.stop()
        sidecar.stop()


@quick
def test_an_ssh_tunnel_is_the_only_way(make, pod, ring, edge):
    """Neither node can be reached; the control host is a port on the node's own loopback."""
    ring.run("TRUNCATE ks.copied")
    tunnel = modeslab.Tunnel(edge, ring.address)
    try:
        with modeslab.Cut("reject", ring.addresses, (None, pod.name)):
            agent = make(controlHosts=[f"127.0.0.1:{tunnel.port}"])
            lab.wait_until(lambda: "nodes of the origin are watched" in agent.log(), 20, agent.log)
            both_ways(pod, ring, FEW_ROWS, "tunnel")
            copy(pod, ring, FEW_ROWS, f"127.0.0.1:{tunnel.port}", "tunnel")
            assert f"using control host 127.0.0.1:{tunnel.port}" in agent.log(), agent.log()
            agent.stop()
    finally:
        tunnel.stop()


# ---- the target

@quick
def test_a_dead_contact_point_of_the_target(make_agent, pod, origin, target, keyspace, equal):
    """Mirror and switched sessions are spread over the contact points; one that is silent costs no client anything."""
    dead = "10.77.9.9"
    with modeslab.Cut("drop", [dead]):
        agent = make_agent(settings={"target": {"contactPoints": [dead, target.address]}})
        agent.phase("mirror")
        load = lab.Load(pod, origin.address, keyspace, prefix="modes", writers=4, rate=10)
        load.wait_running(60)
        agent.phase("cutover")
        load.wait_running(60)
        stat = load.stop()
        assert stat["errors"] == 0, stat["causes"]
        equal(keyspace, [load])
        known = {r["replica"]: r["state"] for r in agent.status()["connections"]["replicas"] if r["side"] == "target"}
        assert known[f"{dead}:9042"] in ("unreachable", "probing"), known
        agent.stop()
