# SPDX-License-Identifier: Apache-2.0
"""Cassandra does not order concurrent requests, and two clusters put them into two orders: one timestamp from the agent
is what makes both end with the same values, and with those that the client sent last."""
import json
import os
import subprocess
import sys
import time

import lab
import pytest

PIPELINE = r"""
import json, struct, sys
import rawcql

host, keyspace, total, keys = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
c = rawcql.Client(host, timeout=60)
statement = c.prepare(f"INSERT INTO {keyspace}.items (id, n) VALUES (?, ?)")
window, last, sent, answered = 200, {}, 0, 0

def request(i):
    key = f"key{(i * 7919 >> 3) % keys}"
    last[key] = i
    if i % 2:
        text = f"INSERT INTO {keyspace}.items (id, n) VALUES ('{key}', {i})"
        return c.frame(rawcql.QUERY, rawcql.long_string(text) + struct.pack(">HB", rawcql.ONE, 0), i % window)
    body = rawcql.short(len(statement)) + statement + struct.pack(">HB", rawcql.ONE, 0x01) + rawcql.short(2)
    return c.frame(rawcql.EXECUTE, body + rawcql.bytes_(key.encode()) + rawcql.bytes_(struct.pack(">i", i)), i % window)

# A stream id is used again once its request is answered; up to `window` requests are on their way, 100 in one send.
free = [True] * window
while answered < total:
    frames = []
    while sent < total and len(frames) < 100 and free[sent % window]:
        free[sent % window] = False
        frames.append(request(sent))
        sent += 1
    if frames:
        c.socket.sendall(b"".join(frames))
        if sent - answered < window and sent < total:
            continue
    _, _, stream, op, body = c.receive()
    assert op == rawcql.RESULT, (op, body)
    assert not free[stream], "a second answer"
    free[stream] = True
    answered += 1
print(json.dumps(last))
"""


@pytest.mark.quick
@pytest.mark.parametrize("hangs", [False, True], ids=["steady", "target hangs meanwhile"])
def test_pipelined_inserts_without_timestamps(make_agent, pod, origin, target, keyspace, equal, hangs):
    agent = make_agent(ebpf=False, phase={"initial": "mirror"})
    source = PIPELINE.replace("rawcql.Client(host,", "rawcql.Client(host, 19043,")
    total = 20000
    program = pod.start([sys.executable, "-c", source, lab.NODE_IP, keyspace, str(total), "5"], text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=lab.HERE))
    try:
        if hangs:
            lab.wait_until(lambda: agent.metric('cqlferry_requests_total{kind="write"}') > total / 10, 30, "a tenth of the writes")
            target.pause()
            time.sleep(1.5)
            target.resume()
        out, errors = program.communicate(timeout=120)
    finally:
        program.kill()
        target.resume()
    assert program.returncode == 0, errors[-3000:]
    agent.settled()
    assert equal(keyspace, both=False, seconds=0).rows == 5
    last = json.loads(out)
    for cluster in (origin, target):
        rows = {r[0]: r[1] for r in cluster.run(f"SELECT id, n FROM {keyspace}.items")}
        assert rows == last, f"{cluster.name} does not hold what was sent last"
