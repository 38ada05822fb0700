# SPDX-License-Identifier: Apache-2.0
"""A write that reaches the target late does not live longer there, also where the target's connections speak v4 only."""
import time

import lab
import pytest

WRITES = """
import sys
import rawcql
c, ks, k = rawcql.Client(sys.argv[1], int(sys.argv[2])), sys.argv[3], int(sys.argv[4])
key = lambda n: (k + n).to_bytes(4, "big")
c.query(f"INSERT INTO {ks}.t (k, v) VALUES ({k}, 'literal') USING TTL 5000")
c.execute(c.prepare(f"INSERT INTO {ks}.t (k, v) VALUES (?, ?) USING TTL ?"), key(1), b"bound", (5000).to_bytes(4, "big"))
c.query(f"UPDATE {ks}.t USING TTL 5000 SET v = 'update' WHERE k = {k + 2}")
c.query(f"INSERT INTO {ks}.d (k, v) VALUES ({k}, 'default')")
c.execute(c.prepare(f"INSERT INTO {ks}.d (k, v) VALUES (?, ?)"), key(1), b"default, prepared")
c.query(f"BEGIN BATCH INSERT INTO {ks}.d (k, v) VALUES ({k + 2}, 'batch') INSERT INTO {ks}.t (k, v) VALUES ({k + 3}, 'batch') APPLY BATCH")
c.query(f"INSERT INTO {ks}.t (k, v) VALUES ({k + 4}, 'stays')")
c.query(f"INSERT INTO {ks}.d (k, v) VALUES ({k + 3}, 'stays') USING TTL 0")
"""


def rows(cluster, keyspace, first):
    """{(table, key): (value, WRITETIME, when it ends)} of the eight from that key on"""
    now, out = time.time(), {}
    for table in ("t", "d"):
        for k, v, written, ttl in cluster.run(f"SELECT k, v, WRITETIME(v), TTL(v) FROM {keyspace}.{table}"):
            if first <= k < first + 10:
                out[table, k] = (v, written, ttl and now + ttl)
    return out


def differences(clusters, keyspace, first, ahead):
    """What is not equal: values, WRITETIME (the target's may be `ahead` µs), and the end of life within 2.5 s."""
    a, b = (rows(c, keyspace, first) for c in clusters)
    assert len(a) == 9, a
    out = []
    for key in sorted(set(a) | set(b)):
        x, y = a.get(key), b.get(key)
        if not x or not y or x[0] != y[0] or not 0 <= y[1] - x[1] <= ahead or (x[2] is None) != (y[2] is None) or abs((x[2] or 0) - (y[2] or 0)) > 2.5:
            out.append(f"{key}: {x} {y}")
    return out


@pytest.mark.quick
def test_late_writes_end_in_time(make_agent, clusters, pod, keyspace):
    """Two agents at once, whose connections to the target speak v4 and v5."""
    target = clusters[1]
    for c in clusters:
        c.run(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v text)",
              f"CREATE TABLE {keyspace}.d (k int PRIMARY KEY, v text) WITH default_time_to_live = 7000")
    ports = {4: 19043, 5: 19044}
    agents = {version: make_agent(ebpf=False, phase={"initial": "mirror"}, listen={"port": port}, http={"port": 9180 + version},
                                  settings={"target": {"protocolVersion": version}}) for version, port in ports.items()}
    for agent in agents.values():
        lab.wait_until(lambda a=agent: a.metric("cqlferry_mirror_connections") > 0, 20, "a connection to the target")

    def write(first):
        for version, port in ports.items():
            pod.python(WRITES, lab.NODE_IP, str(port), keyspace, str(first + version * 1000))

    def equal(first, ahead, seconds=60):
        for version, agent in agents.items():
            agent.settled(seconds)
            assert not differences(clusters, keyspace, first + version * 1000, ahead), version

    def late():
        return {version: agent.metric("cqlferry_mirror_late_total") for version, agent in agents.items()}

    write(100)
    equal(100, 0, seconds=20)
    assert late() == {4: 0, 5: 0}

    # Sent at once, and executed when the node goes on: what it has then lives too long until it is compared.
    target.pause()
    write(200)
    time.sleep(6)
    target.resume()
    equal(200, 3)
    assert late()[4] >= 6 and late()[5] == 0, late()

    # They wait in the journal, over a restart of the agent, until there is somebody to send them to.
    target.stop()
    write(300)
    for agent in agents.values():
        assert agent.stop() == 0
        agent.start()
    time.sleep(3)
    target.restart()
    equal(300, 0)
    assert late()[4] >= 6 and late()[5] == 0, late()
    for agent in agents.values():
        assert not agent.gaps(), agent.gaps()
