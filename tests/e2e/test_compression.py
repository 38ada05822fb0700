# SPDX-License-Identifier: Apache-2.0
"""A target that lacks the compression which clients agreed on with the origin."""
import os

import compare
import lab
import pytest
import shared

NAME = "tcompression"


@pytest.fixture(scope="module")
def poor():
    """Cassandra without snappy, as where the library's native part cannot be loaded."""
    cluster = lab.Cassandra("poor", 9)
    os.environ["JAVA_TOOL_OPTIONS"] = "-Dorg.xerial.snappy.use.systemlib=true"
    try:
        cluster.start()
    finally:
        del os.environ["JAVA_TOOL_OPTIONS"]
    try:
        cluster.wait()
        yield cluster
    finally:
        cluster.save_logs()
        cluster.stop(kill=True)


def connected(cluster):
    """(protocol version, compression) of the connections to that cluster that come from the agent in a client's name."""
    rows = cluster.run("SELECT driver_name, protocol_version, client_options FROM system_views.clients")
    return {(r[1], dict(r[2] or {}).get("COMPRESSION", "none")) for r in rows if r[0] and not r[0].startswith("cqlferry") and r[1] != 5}


@pytest.mark.quick
def test_the_target_lacks_snappy(make_agent, pods, origin, poor):
    """Clients that compress with snappy are carried over, come back, and new ones begin after the switch: no error, nothing lost."""
    with shared.keyspaces((origin, poor), NAME):
        agent = make_agent(target=poor)
        agent.phase("mirror")
        options = {"compression": "snappy", "writers": 4, "rate": 25}
        loads = [lab.Load(pods[0], origin.address, NAME, prefix="v4", protocol=4, **options),
                 lab.Load(pods[1], origin.address, NAME, prefix="v3", protocol=3, **options)]
        for load in loads:
            load.wait_running(100)
        assert {c for _, c in connected(origin)} >= {"snappy"}
        agent.phase("cutover")
        for load in loads:
            load.wait_running(100)
        # Its driver asks the target what it supports, and would not begin without snappy.
        loads.append(lab.Load(pods[2], origin.address, NAME, prefix="new", protocol=4, **options))
        loads[-1].wait_running(100)
        assert connected(poor) >= {(4, "none"), (3, "none")}, connected(poor)
        assert not {c for _, c in connected(poor)} & {"snappy"}
        agent.phase("rollback")
        for load in loads:
            load.wait_running(100)
        for load in loads:
            stat = load.stop()
            assert stat["errors"] == 0, stat["causes"]
        assert "the target does not know the compression snappy" in agent.log()
        assert agent.metrics()['cqlferry_sessions_closed_total{reason="switch"}'] == 0
        sides = [compare.Side(c.name, c.address) for c in (origin, poor)]
        try:
            result = compare.settle(*sides, [NAME, NAME + "_b"], [x.record for x in loads], 20)
        finally:
            for side in sides:
                side.close()
        assert result.ok(), result.text() + "\n" + "\n".join(result.notes)
        print(result.text())
