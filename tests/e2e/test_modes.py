# SPDX-License-Identifier: Apache-2.0
"""Connection modes: unmodified programs in pods of a node from which replicas cannot be reached."""
import os
import subprocess
import sys
import threading
import time

import lab
import modeslab
import pytest

pytestmark = pytest.mark.quick

CQLSH = os.path.join(os.path.dirname(sys.executable), "cqlsh")
QUICK_ROWS = 20000

WARNING = ("Warning: Cannot connect directly to replica nodes. Falling back to proxy mode through control host (slower but functional). "
           "Hint: Use CONNECTIONMODE='proxy' to suppress this warning.")
NOTE = ("Note: Running in proxy mode. All data will be routed through a single connection. This may be slower than direct mode for large "
        "datasets. For best performance with accessible nodes, use CONNECTIONMODE='direct'.")


@pytest.fixture(scope="module")
def ring():
    """Two nodes at RF 1: half of each table is on a replica that the agent's node will not reach."""
    # Two JVMs that have just begun, on a machine that others use as well: their time-outs are not what is tested here.
    patience = [x for k in ("write", "read", "range", "truncate") for x in ("--set", f"{k}_request_timeout: 60s")]
    cluster = lab.Cassandra("ring", 7, 2, options=("--auth", *patience))
    try:
        cluster.start()
        cluster.wait()
        cluster.run("CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
                    "CREATE TABLE ks.items (id int PRIMARY KEY, a text, b int)", "CREATE TABLE ks.copied (id int PRIMARY KEY, a text, b int)")
        yield cluster
    finally:
        cluster.save_logs()
        for i in range(len(cluster.nodes)):
            cluster.stop(i, kill=True)


@pytest.fixture
def make(make_agent, ring, target):
    """make(**connection): an agent for the ring that relays while it observes."""

    def one(settings=None, ebpf=True, **connection):
        # Beside those of others on this node.
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
        return sorted(f.read().split())


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


@pytest.mark.parametrize("how", modeslab.CUTS)
def test_an_unmodified_cqlsh_copies(make, pod, ring, how):
    """The second replica cannot be reached, neither from the pod nor from the agent."""
    agent = make()
    ring.run("TRUNCATE ks.copied")
    with modeslab.Cut(how, ring.addresses[1:], (None, pod.name)):
        both_ways(pod, ring, QUICK_ROWS, how)
    log = agent.log()
    replica = f"{ring.addresses[1]}:9042"
    assert log.count(WARNING) == 1
    assert log.count(f"CQL connection fallback: replica {replica} unreachable, using control host {ring.address}:9042") == 1, log
    metrics = agent.metrics()
    assert metrics['cqlferry_dials_way_total{way="fallback"}'] >= 2 and metrics['cqlferry_replicas{state="unreachable"}'] == 1, metrics
    known = {r["replica"]: r["state"] for r in agent.status()["connections"]["replicas"]}
    assert known[replica] == "unreachable", known
    assert agent.metric("cqlferry_sessions_closed_total") and metrics['cqlferry_sessions_closed_total{reason="dial"}'] == 0
