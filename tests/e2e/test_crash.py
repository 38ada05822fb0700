# SPDX-License-Identifier: Apache-2.0
"""The agent is killed with SIGKILL, again and again, at moments that nobody chose, and every write that a client saw
succeed is on both clusters afterwards; those that nobody answered are on both or on neither.

LAB_SEED=n repeats a run's moments."""
import os
import random
import time

import lab
import pytest
import workload

SEED = int(os.environ.get("LAB_SEED", "0")) or random.randrange(1, 1 << 30)

# How a kill finds the agent: as it happens to be; with a backlog, because the target hangs; with requests in flight to the
# origin, which hangs and takes them only when nobody waits for their outcome any more; while it recovers from another kill.
WAYS = ("as it is", "backlog", "in flight", "recovering")
# What an application sees of a node that dies. Anything else would be an error of the agent's.
LOST = ("NoHostAvailable", "ConnectionShutdown", "ConnectionException", "OperationTimedOut", "ConnectionBusy")


def kill(agent, origin, target, dice, way):
    """One kill, and the agent runs again; the clusters as well."""
    hangs = {"backlog": target, "in flight": origin}.get(way)
    if way == "recovering":
        agent.kill()
        agent.start(ready=False)
    if hangs:
        hangs.pause()
    try:
        time.sleep(dice.uniform(0, 0.12 if way == "recovering" else 0.3))
        agent.kill()
        if way == "in flight":
            origin.resume()
        agent.start()
    finally:
        if hangs:
            hangs.resume()


@pytest.mark.parametrize("through, kills", [
    pytest.param("port", 17, marks=pytest.mark.quick), pytest.param("interception", 4, marks=pytest.mark.quick),
    ("port", 180), ("interception", 40)])
def test_killed_at_random_moments(make_agent, pods, origin, target, keyspace, equal, through, kills):
    dice = random.Random(f"{SEED}/{through}/{kills}")
    agent = make_agent(ebpf=through == "interception", phase={"initial": "mirror"})
    contact, port = (origin.address, 9042) if through == "interception" else (lab.NODE_IP, 19043)
    names = (keyspace, workload.second_keyspace(keyspace))
    loads = [lab.Load(pods[i % 3], contact, names[i % 2], prefix=f"w{i}", port=port, protocol=(4, 5)[i // 2], writers=4, sessions=1,
                      timestamps=("client", "server")[i % 2], rate=40, once=True, reconnect=0.2, no_schema=True) for i in range(4)]
    for load in loads:
        load.wait_running(20)
    count, done, began = 0, [], time.time()
    while count < kills:
        way = dice.choice(WAYS)
        kill(agent, origin, target, dice, way)
        done.append(f"{way} at {time.time() - began:.0f} s")
        count += 2 if way == "recovering" else 1
        for load in loads:
            load.wait_running(5)
        time.sleep(dice.uniform(0, 0.5))
    stats = [load.stop() for load in loads]
    print(f"seed {SEED}: {count} kills: {done}; " + ", ".join(f"{s['acknowledged']}+{s['unanswered']}?" for s in stats))
    for stat in stats:
        assert all(cause.startswith(LOST) and "Error from server" not in cause for cause in stat["causes"]), stat["causes"]
    assert sum(s["unanswered"] for s in stats) > 0, "no kill met a request in flight"
    agent.settled()
    # It says that nothing is left to do, so there is nothing to wait for.
    result = equal(keyspace, loads, seconds=0, slack=2)
    print(result.text())
    given_up = [g for g in agent.gaps() if g["cause"] in ("shed", "dead_letter", "undelivered", "unclassified")]
    assert given_up == [], "on the ledger although there was room, time and a target for it"
