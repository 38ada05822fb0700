# SPDX-License-Identifier: Apache-2.0
"""Traffic changes sides and comes back under open connections."""
import os
import subprocess
import sys
import time

import lab
import pytest

HOLD_US = 1_000_000
CLIENT_PAUSE_MS = 5_000


def settled(agent):
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")


class Talk:
    """A program in a pod that answers a line with a line."""

    def __init__(self, pod, source, *args, command=None):
        env = dict(os.environ, PYTHONPATH=lab.HERE)
        command = command or pod.command([sys.executable, "-c", source, *args])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def line(self):
        out = self.process.stdout.readline().strip()
        if not out:
            self.process.kill()
            raise lab.LabError("the program ended: " + self.process.stderr.read()[-2000:])
        return out

    def ask(self, text="go"):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.mark.quick
def test_cutover_and_rollback_under_load(agent, pods, origin, target, keyspace, equal):
    """16 writers for 60 s: no error, nothing lost, hold ≤ 1 s as the agent measures it, ≤ 5 s as a client sees it."""
    agent.phase("mirror")
    began = time.time()
    contact = ",".join(origin.addresses)
    loads = [
        lab.Load(pods[0], contact, keyspace, prefix="v5", protocol=5, writers=6, rate=12),
        lab.Load(pods[1], contact, keyspace, prefix="v4", protocol=4, writers=5, rate=12, compression="any"),
        lab.Load(pods[2], contact, keyspace, prefix="v3", protocol=3, writers=4, rate=12),
        lab.Load(pods[2], origin.address, keyspace, prefix="sh", program="cqlsh_writer.py", rate=5),
    ]

    def go_on(seconds):
        end = began + seconds
        for load in loads:
            load.wait_running(20)
        time.sleep(max(0.0, end - time.time()))

    holds = []
    go_on(15)
    agent.phase("cutover")
    assert agent.metrics()["cqlferry_phase"] == 3
    holds.append(agent.metric("cqlferry_hold_last_microseconds"))
    go_on(32)
    agent.phase("rollback")
    assert agent.metrics()["cqlferry_phase"] == 1, "after a rollback the agents mirror"
    holds.append(agent.metric("cqlferry_hold_last_microseconds"))
    go_on(46)
    agent.phase("cutover")
    holds.append(agent.metric("cqlferry_hold_last_microseconds"))
    go_on(60)
    stats = [x.stop() for x in loads]
    for stat in stats:
        assert stat["errors"] == 0, stat["causes"]
        assert stat["longest_ms"] <= CLIENT_PAUSE_MS
    assert all(0 < h <= HOLD_US for h in holds), holds
    assert agent.metric("cqlferry_unmirrored_total") == 0
    settled(agent)
    result = equal(keyspace, loads)
    print(f"{result.text()}; holds {[round(h / 1000, 1) for h in holds]} ms, "
          f"longest pauses {[s['longest_ms'] for s in stats]} ms")
    assert result.acknowledged > 1500


@pytest.mark.quick
def test_reads_change_sides_with_the_writes(agent, pod, origin, target, keyspace):
    """A row that only one side has shows who answers; on one connection that stays open all the while."""
    agent.phase("mirror")
    source = f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
c.query("USE {keyspace}")
p = c.prepare("SELECT n FROM items WHERE id = 'where'")
print(c.query("SELECT n FROM items WHERE id = 'where'")[1][-1], c.execute(p)[1][-1], flush=True)
for line in sys.stdin:
    print(c.query("SELECT n FROM items WHERE id = 'where'")[1][-1], c.execute(p)[1][-1], flush=True)
"""
    origin.run(f"INSERT INTO {keyspace}.items (id, n) VALUES ('where', 1)")
    target.run(f"INSERT INTO {keyspace}.items (id, n) VALUES ('where', 2)")
    talk = Talk(pod, source, origin.address)
    try:
        assert talk.line() == "1 1"
        agent.phase("cutover", "--force")
        assert talk.ask() == "2 2"
        agent.phase("rollback")
        assert talk.ask() == "1 1"
    finally:
        talk.end()


@pytest.mark.quick
def test_paging_across_a_cutover(agent, pod, origin, target, keyspace):
    """A sequence of pages that began on the origin ends there, and one that began on the target ends on the target."""
    agent.phase("mirror")
    pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
for i in range(40):
    c.query(f"INSERT INTO {keyspace}.events (w, i, n) VALUES (1, {{i}}, 1)")
""", origin.address)
    settled(agent)
    source = f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
text = "SELECT i FROM {keyspace}.events WHERE w = 1"
open_state, kept = None, None
for line in sys.stdin:
    word = line.strip()
    if word == "begin":
        n, open_state = c.paged(text, 15)
    elif word == "next":
        n, open_state = c.paged(text, 15, open_state)
    elif word == "keep":
        kept = open_state
    elif word == "kept":
        n, _ = c.paged(text, 15, kept)
    print(n if word != "keep" else "kept", "more" if open_state else "end", flush=True)
"""
    talk = Talk(pod, source, origin.address)
    try:
        assert talk.ask("begin") == "15 more"
        agent.phase("cutover")
        assert talk.ask("next") == "15 more"
        assert talk.ask("next") == "10 end"
        assert talk.ask("begin") == "15 more"
        agent.phase("rollback")
        assert talk.ask("next") == "15 more"
        assert talk.ask("next") == "10 end"
    finally:
        talk.end()


@pytest.mark.quick
def test_topology_stays_frozen(agent, pod, origin, target):
    """After the cutover a client sees the origin's nodes as before, and can still reach them."""
    agent.phase("mirror")
    source = """
import rawcql, sys
c = rawcql.Client(sys.argv[1])
def look():
    out = b""
    for q in ("SELECT host_id, rpc_address, cluster_name, tokens FROM system.local",
              "SELECT peer, host_id FROM system.peers", "SELECT * FROM system.peers_v2"):
        out += c.query(q)[1]
    return hash(out)
first = look()
print("same", flush=True)
for line in sys.stdin:
    print("same" if look() == first else "different", flush=True)
"""
    talk = Talk(pod, source, origin.address)
    try:
        talk.line()
        agent.phase("cutover")
        assert talk.ask() == "same"
        # A client that connects only now gets the same picture.
        r = pod.python("""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
body = c.query("SELECT cluster_name, rpc_address FROM system.local")[1]
print("origin" if b"origin" in body and b"target" not in body else body)
""", origin.address)
        assert r.stdout.strip() == "origin"
        agent.phase("rollback")
        assert talk.ask() == "same"
    finally:
        talk.end()


@pytest.mark.quick
@pytest.mark.parametrize("cause, statement", [
    ("lwt", "INSERT INTO {ks}.items (id, n) VALUES ('lwt', 1) IF NOT EXISTS"),
    ("counter", "UPDATE {ks}.counts SET c = c + 1 WHERE id = 'a'"),
    ("list_operation", "UPDATE {ks}.items SET f = f + [1] WHERE id = 'f'"),
], ids=["lwt", "counter", "list_operation"])
def test_what_is_not_mirrored_is_counted_and_refuses_the_cutover(agent, pod, origin, target, keyspace, cause, statement):
    for c in (origin, target):
        c.run(f"CREATE TABLE {keyspace}.counts (id text PRIMARY KEY, c counter)",
              f"ALTER TABLE {keyspace}.items ADD f list<int>")
    agent.phase("mirror")
    pod.python("import rawcql, sys; rawcql.Client(sys.argv[1]).query(sys.argv[2])", origin.address,
               statement.format(ks=keyspace))
    metrics = agent.metrics()
    assert metrics.get(f'cqlferry_unmirrored_total{{cause="{cause}"}}') == 1, "the write was not counted"
    table = "counts" if cause == "counter" else "items"
    assert len(origin.run(f"SELECT * FROM {keyspace}.{table}")) == 1, "the write must reach the origin all the same"
    assert len(target.run(f"SELECT * FROM {keyspace}.{table}")) == 0
    r = agent.phase("cutover", check=False)
    assert r.returncode != 0
    assert "not mirrored" in (r.stdout + r.stderr)
    assert agent.metrics()["cqlferry_phase"] == 1, "a refused cutover leaves the agent mirroring"
    assert "unmirrored" in agent.cli("status").stdout


FOREIGN = """
import rawcql, sys
c = rawcql.Client(sys.argv[1])
print("connected", flush=True)
sys.stdin.readline()
"""


def refused_while_connected(agent, foreign, address):
    try:
        assert foreign.line() == "connected"
        r = agent.phase("cutover", check=False)
        assert r.returncode != 0, "the writes of a client that we do not carry would be lost"
        assert address in (r.stdout + r.stderr), r.stdout + r.stderr
        assert agent.metrics()["cqlferry_phase"] == 1
    finally:
        foreign.end()
    # It is gone: now the way is free.
    lab.wait_until(lambda: agent.phase("cutover", check=False).returncode == 0, 15, "the cutover", step=0.5)


@pytest.mark.quick
def test_a_foreign_client_on_the_origin_refuses_the_cutover(agent, pods, origin, target, keyspace):
    """Another machine's client: it has the third pod's address, but is in none of the cgroups that the agent looks at."""
    agent.phase("mirror")
    command = ["nsenter", f"--net=/run/netns/{pods[2].name}", "--", sys.executable, "-c", FOREIGN, origin.address]
    refused_while_connected(agent, Talk(None, None, command=command), pods[2].address)


@pytest.mark.quick
def test_a_client_on_the_node_itself_refuses_the_cutover(agent, origin, target, keyspace):
    """A program with the agent's own address, which is no reason to take it for the agent."""
    agent.phase("mirror")
    refused_while_connected(agent, Talk(None, None, command=[sys.executable, "-c", FOREIGN, origin.address]), lab.NODE_IP)


@pytest.mark.quick
def test_kernel_direct_after_finish(agent, pod, origin, target, keyspace):
    """At the end the agent is out of the way: a new connection to the origin's address ends on a target node."""
    agent.phase("mirror")
    agent.phase("cutover")
    agent.phase("finish")
    assert agent.metrics()["cqlferry_phase"] == 5
    before = agent.metric("cqlferry_sessions_opened_total")
    r = pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1])
assert c.socket.getpeername()[0] == sys.argv[1], c.socket.getpeername()
c.query("INSERT INTO {keyspace}.items (id, n) VALUES ('direct', 1)")
body = c.query("SELECT cluster_name FROM system.local")[1]
print("target" if b"target" in body else body)
""", origin.address)
    assert r.stdout.strip() == "target"
    assert agent.metric("cqlferry_sessions_opened_total") == before, "the connection went through the agent"
    assert len(target.run(f"SELECT * FROM {keyspace}.items WHERE id = 'direct'")) == 1
    assert len(origin.run(f"SELECT * FROM {keyspace}.items WHERE id = 'direct'")) == 0
