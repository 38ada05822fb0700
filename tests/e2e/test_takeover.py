# SPDX-License-Identifier: Apache-2.0
"""A new agent takes over from the one that runs: no connect is refused, no write is lost, nothing is left over."""
import json
import os
import signal
import subprocess
import sys
import time

import lab
import pytest
from test_migration_service import PROXY, SERVICE, START, Service, schema

# New connections, one after the other; now and then an unmodified driver's whole session. Every failure is an error that an
# application would have seen.
CONNECTS = """
import json, socket, sys, time
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster
host, port, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tally = {"bare": 0, "driver": 0, "refused": 0, "errors": []}
import os
while not os.path.exists(stop):
    for _ in range(10):
        try:
            with socket.create_connection((host, port), 5) as s:
                s.settimeout(5)
                s.sendall(bytes([4, 0, 0, 1, 5, 0, 0, 0, 0]))
                assert s.recv(9), "closed without an answer"
            tally["bare"] += 1
        except ConnectionRefusedError:
            tally["refused"] += 1
        except Exception as e:
            tally["errors"].append("bare: " + repr(e))
        time.sleep(0.03)
    try:
        cluster = Cluster([host], port=port, protocol_version=4, connect_timeout=10,
                          auth_provider=PlainTextAuthProvider("cassandra", "cassandra"))
        session = cluster.connect()
        assert session.execute("SELECT key FROM system.local").one()
        cluster.shutdown()
        tally["driver"] += 1
    except Exception as e:
        tally["errors"].append("driver: " + repr(e))
print(json.dumps(tally))
"""


class Connects:
    def __init__(self, pod, host, port=9042):
        self.stop_path = os.path.join(os.environ["TMPDIR"], f"stop-connects-{time.time()}")
        self.process = pod.start([sys.executable, "-c", CONNECTS, host, port, self.stop_path], text=True,
                                 stdout=subprocess.PIPE, env=dict(os.environ, PYTHONWARNINGS="ignore"))

    def end(self):
        open(self.stop_path, "w").close()
        out = self.process.communicate(timeout=40)[0]
        return json.loads(out)


def bpftool(*args):
    return json.loads(subprocess.run(["bpftool", "-j", *args], check=True, stdout=subprocess.PIPE).stdout)


def kernel_side(agent):
    """What a person sees with bpftool: pins by name, programs by name on the selected cgroup, ids of the maps."""
    pins = {n: os.path.join(d, n) for d, _, names in os.walk(agent.pins) for n in names}
    cgroup = os.path.join(subprocess.run(["findmnt", "-n", "-o", "TARGET", "-t", "cgroup2"], check=True, text=True,
                                         stdout=subprocess.PIPE).stdout.split()[0], os.environ["LAB_CGROUP"].lstrip("/"))
    if os.path.isdir(os.environ["LAB_CGROUP"]):
        cgroup = os.environ["LAB_CGROUP"]
    return {"pins": sorted(pins),
            "maps": {n: bpftool("map", "show", "pinned", p)["id"] for n, p in pins.items() if not n.startswith("link-")},
            "links": {n: bpftool("link", "show", "pinned", p)["id"] for n, p in pins.items() if n.startswith("link-")},
            "programs": sorted(p["name"] for p in bpftool("cgroup", "show", cgroup))}


def three_takeovers(agent, loads, connects):
    for _ in range(3):
        old = agent.take_over()
        for load in loads:
            load.wait_running(60)
        assert old.wait(25) == 0, "exit status of the agent that handed over"
    tally = connects.end()
    assert tally["refused"] == 0 and not tally["errors"], tally
    assert tally["bare"] >= 30 and tally["driver"] > 2, tally
    return tally


@pytest.mark.quick
def test_three_takeovers_under_load(make_agent, pods, origin, target, keyspace, equal):
    agent = make_agent(takeover={"drainMillis": 12000})
    agent.phase("mirror")
    before = kernel_side(agent)
    load = lab.Load(pods[0], origin.address, keyspace, prefix="to", protocol=4, writers=16, rate=15)
    load.wait_running(100)
    connects = Connects(pods[1], origin.address)
    tally = three_takeovers(agent, [load], connects)
    assert agent.metrics()["cqlferry_phase"] == 1, "the phase went with it"
    assert agent.metric("cqlferry_sessions_opened_total") > 0
    assert "agentBefore" not in agent.status()
    stat = load.stop()
    print("takeovers:", tally, "writer:", stat["acknowledged"], "acknowledged,", stat["errors"], "errors", stat["causes"],
          "longest", stat["longest_ms"], "ms")
    assert not [c for c in stat["causes"] if "refused" in c.lower()], stat["causes"]
    equal(keyspace, [load])
    assert kernel_side(agent) == before


@pytest.mark.quick
def test_takeover_of_the_explicit_port(make_agent, pods, origin, target, keyspace, equal):
    """No eBPF: the listening sockets themselves go from one process to the next. First while observing, then mirroring."""
    agent = make_agent(ebpf=False, takeover={"drainMillis": 12000}, workers=2)
    port = 19043
    connects = Connects(pods[1], lab.NODE_IP, port)
    old = agent.take_over()
    assert agent.metrics()["cqlferry_phase"] == 0
    r = agent.phase("mirror", check=False)
    assert r.returncode != 0 and "agent before this one" in r.stderr, "two agents on two sides"
    assert old.wait(25) == 0
    agent.phase("mirror")
    load = lab.Load(pods[0], lab.NODE_IP, keyspace, prefix="ex", port=port, protocol=5, writers=16, rate=15)
    load.wait_running(60)
    agent.config["workers"] = 1  # fewer than there are sockets
    for _ in range(2):
        old = agent.take_over()
        load.wait_running(60)
        assert old.wait(25) == 0
    tally = connects.end()
    assert tally["refused"] == 0 and not tally["errors"], tally
    stat = load.stop()
    print("explicit:", tally, stat["acknowledged"], "acknowledged,", stat["errors"], "errors", stat["causes"])
    assert not [c for c in stat["causes"] if "refused" in c.lower()], stat["causes"]
    equal(keyspace, [load])


@pytest.mark.quick
def test_observing_agents_follow_one_another(make_agent, pods, origin, keyspace):
    agent = make_agent(takeover={"drainMillis": 12000})
    connects = Connects(pods[1], origin.address)
    time.sleep(1)
    three = [agent.take_over().wait(20) for _ in range(3)]
    tally = connects.end()
    assert three == [0, 0, 0]
    assert tally["refused"] == 0 and not tally["errors"] and tally["bare"] >= 10, tally
    assert agent.metric("cqlferry_sessions_opened_total") == 0, "observing leaves connections direct"


@pytest.mark.quick
def test_a_successor_that_fails_leaves_the_old_agent_serving(make_agent, pods, origin, keyspace):
    """Killed half-way, or unable to start: the old one takes everything back, and no client has noticed."""
    agent = make_agent()
    agent.phase("mirror")
    load = lab.Load(pods[0], origin.address, keyspace, prefix="tb", protocol=4, writers=4, rate=20)
    load.wait_running(40)
    old = agent.process
    good = agent.config
    # Before the handover: a directory that knows nothing of the phase. After it: an address that is not this machine's.
    for wrong, word, given in (({"state": {"directory": agent.state + "-other"}}, "state.directory", False),
                               ({"http": {"address": "203.0.113.7"}}, "203.0.113.7", True)):
        agent.config = lab.merge(good, wrong)
        agent.start(ready=False, more=["--takeover"])
        assert agent.process.wait(20) == 1
        agent.process, agent.config = old, good
        lab.wait_until(lambda: word in agent.log() and ("did not take over" in agent.log()) == given, 15, agent.log)
        lab.wait_until(lambda: agent.http("/readyz")[0] == 200, 15, "its HTTP port is there again")
    assert agent.status()["phase"] == "mirror"
    # While a TRUNCATE waits for a table on hold: what is written through the new one would be on the target before it.
    agent.cli("hold", f"{keyspace}.later")
    pods[1].python("import rawcql, sys\nrawcql.Client(sys.argv[1]).query(sys.argv[2])", origin.address, f"TRUNCATE {keyspace}.later")
    agent.start(ready=False, more=["--takeover"])
    assert agent.process.wait(20) == 1
    agent.process = old
    assert "waits for its turn" in agent.log() and agent.http("/readyz")[0] == 200, agent.log()
    agent.cli("release", f"{keyspace}.later")
    agent.settled()
    agent.phase("observe")
    agent.phase("mirror")
    load.wait_running(40)
    stat = load.stop()
    assert stat["errors"] == 0, stat["causes"]
    # And where nobody answers, it says so and what to do.
    old.send_signal(signal.SIGSTOP)
    try:
        agent.start(ready=False, more=["--takeover"])
        assert agent.process.wait(30) == 1
        assert "does not hand over" in agent.log() and "SIGTERM" in agent.log(), agent.log()
    finally:
        old.send_signal(signal.SIGCONT)
        agent.process = old


@pytest.mark.quick
def test_nothing_is_forgotten_without_a_state_directory(make_agent, origin, target, keyspace):
    """The phase and the migration service's Start are in memory only: taken back, or taken over, they are the same."""
    service = Service()
    migration = {"serviceHost": lab.NODE_IP, "servicePort": SERVICE, "proxyHost": lab.NODE_IP, "proxyPort": PROXY}
    try:
        agent = make_agent(start=False, ebpf=False, migration=migration, state={"directory": ""})
        agent.start(ready=False)
        service.connect()
        assert service.ask(START, schema(keyspace)) == (True, "")
        agent.wait_ready()
        good, old = agent.config, agent.process
        agent.config = lab.merge(good, {"http": {"address": "203.0.113.7"}})  # not this machine's
        agent.start(ready=False, more=["--takeover"])
        assert agent.process.wait(20) == 1
        agent.process, agent.config = old, good
        lab.wait_until(lambda: "did not take over" in agent.log(), 15, agent.log)
        lab.wait_until(lambda: agent.http("/readyz")[0] == 200, 15, "its HTTP port is there again")
        assert agent.status()["phase"] == "mirror"
        assert not agent.status()["migrationService"]["waiting"]
        old = agent.take_over()
        assert agent.status()["phase"] == "mirror"
        assert not agent.status()["migrationService"]["waiting"]
        assert old.wait(25) == 0
    finally:
        service.close()


def test_old_agent_killed_while_it_drains(make_agent, pods, origin, keyspace):
    """What it had not delivered is in its journal, which the new agent takes over; its end is on the ledger, and no debt."""
    agent = make_agent()
    agent.phase("mirror")
    load = lab.Load(pods[0], origin.address, keyspace, prefix="dr", protocol=4, writers=4, rate=20)
    load.wait_running(40)
    old = agent.take_over()
    before = agent.status()["agentBefore"]
    assert before["pid"] == old.pid
    old.kill()
    lab.wait_until(lambda: "agentBefore" not in agent.status(), 10, "the old agent's end to be noticed")
    assert "ended without notice" in agent.log()
    gaps = json.loads(agent.cli("gaps", "--json", "--cause", "down").stdout)["gaps"]
    assert len(gaps) == 1 and gaps[0]["missing"] == "target", gaps
    load.wait_running(40)
    load.stop()
    agent.settled(30)
    agent.phase("cutover")
