# SPDX-License-Identifier: Apache-2.0
"""A planned restart in each phase: what is in flight is answered, nothing is lost, and meanwhile the phase's rule holds."""
import subprocess
import sys
import time

import lab
import pytest

CONNECT = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], 9042), 3)
    s.sendall(bytes([4, 0, 0, 1, 5, 0, 0, 0, 0]))
    print("answer" if s.recv(9) else "closed")
except ConnectionRefusedError:
    print("refused")
except OSError as e:
    print(type(e).__name__)
"""


def connect(pod, origin):
    return pod.python(CONNECT, origin.address).stdout.strip()


@pytest.mark.quick
@pytest.mark.parametrize("phase, meanwhile", [("observe", "answer"), ("mirror", "refused"), ("cutover", "refused")])
def test_sigterm_and_restart_under_load(agent, pods, origin, target, keyspace, equal, phase, meanwhile):
    if phase != "observe":
        agent.phase("mirror")
    load = lab.Load(pods[0], origin.address, keyspace, prefix="re", protocol=4, writers=6, rate=20)
    load.wait_running(100)
    if phase == "cutover":
        agent.phase("cutover")
        load.wait_running(50)
    assert connect(pods[1], origin) == "answer"
    assert agent.stop() == 0, "exit status after SIGTERM"
    assert connect(pods[1], origin) == meanwhile
    time.sleep(1)
    agent.start()
    assert agent.metrics()["cqlferry_phase"] == {"observe": 0, "mirror": 1, "cutover": 3}[phase], "the phase is remembered"
    assert connect(pods[1], origin) == "answer"
    load.wait_running(100)
    stat = load.stop()
    if phase == "observe":
        assert stat["errors"] == 0, stat["causes"]
        return
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
    equal(keyspace, [load])


def test_grace_ends_in_mirror(make_agent, pods, origin, target, keyspace):
    """Closed for the grace, then open, and what passes meanwhile is on record when the agent is back."""
    agent = make_agent(intercept={"graceMillis": 2000})
    agent.phase("mirror")
    agent.stop()
    assert connect(pods[0], origin) == "refused"
    lab.wait_until(lambda: connect(pods[0], origin) == "answer", 10, "open after the grace", step=0.3)
    agent.start()
    lab.wait_until(lambda: agent.metrics().get('cqlferry_intercept_total{verdict="bypassed"}', 0) > 0, 10,
                   "the bypass to be counted")
    assert agent.metrics().get('cqlferry_intercept_total{verdict="refused"}', 0) > 0
    assert origin.address in agent.log() and "agent gone" in agent.log(), "the bypass is not in the log"


@pytest.mark.quick
def test_sigkill_is_noticed_by_the_kernel(agent, pods, origin, keyspace):
    """No orderly stop: the heartbeat runs out, and the phase's rule holds all the same."""
    agent.phase("mirror")
    agent.kill()
    lab.wait_until(lambda: connect(pods[0], origin) == "refused", 5, "refused after kill -9", step=0.2)
    agent.start()
    assert connect(pods[0], origin) == "answer"


# Asks once a second; says what became of it when it ends, at the latest after so many seconds.
TALK = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 9042), 3)
end = time.time() + float(sys.argv[2])
print("open", flush=True)
try:
    while time.time() < end:
        s.sendall(bytes([4, 0, 0, 1, 5, 0, 0, 0, 0]))
        if not s.recv(65536):
            raise ConnectionError()
        time.sleep(0.2)
    print("lives")
except OSError:
    print("closed")
"""


@pytest.mark.quick
def test_off_frees_every_connection(agent, pods, origin):
    agent.phase("mirror")
    assert connect(pods[0], origin) == "answer"
    before = agent.metric("cqlferry_sessions_opened_total")
    agent.cli("off")
    assert connect(pods[0], origin) == "answer"
    assert agent.metric("cqlferry_sessions_opened_total") == before, "still intercepted after off"
    assert pods[0].python(TALK, origin.address, 3).stdout.split() == ["open", "lives"], "closed although interception is off"
    open_one = pods[0].start([sys.executable, "-c", TALK, origin.address, 15], text=True, stdout=subprocess.PIPE)
    assert open_one.stdout.readline().strip() == "open"
    agent.cli("on")
    assert open_one.communicate(timeout=20)[0].strip() == "closed", "passes by the agent although interception is on again"


# With its entry's head larger than the journal's whole budget below: it would wait for ever, and is relayed without being mirrored.
LARGE = """
import rawcql, sys
rawcql.Client(sys.argv[1]).query(f"INSERT INTO {sys.argv[2]}.items (id, v) VALUES ('{sys.argv[3]}', '{'x' * (1048550 - len(sys.argv[2]) - 60)}')")
"""


@pytest.mark.quick
def test_a_debt_outlives_a_restart(make_agent, pods, origin, keyspace):
    """What was not mirrored refuses the cutover of the next agent as well; --force goes on, and back only with --force again."""
    agent = make_agent(limits={"mirrorBytes": "1MiB", "frameBytes": "1MiB"})
    agent.phase("mirror")
    pods[0].python(LARGE, origin.address, keyspace, "there")
    agent.stop()
    agent.start()
    assert agent.metrics()['cqlferry_unmirrored_total{cause="shed"}'] == 1, "forgotten over the restart"
    assert agent.status()["unmirrored"]["shed"] == 1
    r = agent.phase("cutover", check=False)
    assert r.returncode != 0 and "missing on the target: 1 writes shed" in r.stdout + r.stderr, r.stdout + r.stderr
    agent.phase("cutover", "--force")
    pods[0].python(LARGE, origin.address, keyspace, "back")
    r = agent.phase("rollback", check=False)
    assert r.returncode != 0 and "missing on the origin: 1 writes shed" in r.stdout + r.stderr, r.stdout + r.stderr
    assert agent.status()["phase"] == "cutover"
    r = agent.phase("finish", check=False)
    assert r.returncode != 0 and "missing on the target" in r.stdout + r.stderr, r.stdout + r.stderr
    agent.phase("rollback", "--force")
    assert agent.status()["phase"] == "mirror"
    agent.stop()
    gaps = agent.cli("gaps", "--config", agent.config_path, "--cause", "forced")
    assert "no agent answers" in gaps.stderr and "cutover" in gaps.stdout, gaps


@pytest.mark.quick
def test_a_start_in_mirror_makes_the_preflight(make_agent, origin, target, keyspace):
    """Nobody asked `phase mirror`: what it would have refused is said all the same, and the clocks are measured."""
    target.run(f"DROP TABLE {keyspace}.later")
    agent = make_agent(phase={"initial": "mirror"})
    status = lab.wait_until(lambda: agent.status() if "problems" in agent.status() else None, 30, "the preflight's findings", step=0.5)
    assert any(keyspace in p for p in status["problems"]), status["problems"]
    assert agent.metrics()["cqlferry_preflight_failed"] >= 1
    assert "mirroring goes on although" in agent.log()
    for side in ("origin", "target"):
        clock = status["clocks"][side]
        assert clock["differsMillis"] < 100 and not clock["tooFar"], clock
        assert agent.metrics()[f'cqlferry_clock_alarm{{side="{side}"}}'] == 0
