# SPDX-License-Identifier: Apache-2.0
"""Large results and large writes in bounded memory."""
import threading

import pytest

pytestmark = pytest.mark.quick

MIB = 1 << 20


class Watch(threading.Thread):
    """The highest anonymous memory of a process, looked at every 5 ms: pages of the program's own file that are touched
    for the first time are not growth."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.done = pid, threading.Event()
        self.first = self.peak = self.anonymous()

    def anonymous(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as f:
            return next(int(x.split()[1]) for x in f if x.startswith("RssAnon"))

    def run(self):
        while not self.done.wait(0.005):
            self.peak = max(self.peak, self.anonymous())

    def grown(self):
        self.done.set()
        self.join()
        return self.peak - self.first


@pytest.fixture
def big(origin, target, keyspace):
    """64 MiB on the origin, written past the agent."""
    import compare
    import lab

    for c in (origin, target):
        c.run(f"CREATE TABLE {keyspace}.big (id int PRIMARY KEY, b blob)")
    side = compare.Side("origin", origin.address, lab.USER, lab.PASSWORD)
    insert = side.session.prepare(f"INSERT INTO {keyspace}.big (id, b) VALUES (?, ?)")
    for i in range(64):
        side.session.execute(insert, (i, bytes([i]) * MIB))
    side.close()
    return keyspace


READ = """
import rawcql, sys, time
c = rawcql.Client(sys.argv[1], timeout=60)
c.query("SELECT key FROM system.local")
stream = c.send(rawcql.QUERY, rawcql.long_string(f"SELECT b FROM {sys.argv[2]}.big") + b"\\0\\1\\0")
header = c.exactly(9)
size = int.from_bytes(header[5:], "big")
slow = float(sys.argv[3])
left, counts = size, [0] * 256
began = time.time()
while left:
    chunk = c.socket.recv(min(left, 1 << 18))
    assert chunk
    left -= len(chunk)
    for v in range(64):
        counts[v] += chunk.count(v) if v > 5 else 0
    if slow and time.time() - began < slow:
        time.sleep(0.02)
assert all(n >= 1 << 20 for n in counts[6:64]), counts
c.query("SELECT key FROM system.local")  # the connection is in order afterwards
print(size)
"""


@pytest.mark.parametrize("slow", [0, 3], ids=["fast reader", "slow reader"])
def test_a_64_mib_result(agent, pod, origin, big, slow):
    agent.phase("mirror")
    pod.python("import rawcql, sys; rawcql.Client(sys.argv[1]).query('SELECT key FROM system.local')", origin.address)
    watch = Watch(agent.process.pid)
    watch.start()
    r = pod.python(READ, origin.address, big, str(slow), timeout=120)
    assert int(r.stdout) > 64 * MIB
    grown = watch.grown()
    print(f"peak {grown} KiB above {watch.first} KiB")
    assert grown <= 1024, f"the agent grew by {grown} KiB"


def test_large_writes_are_mirrored(agent, pod, origin, target, keyspace, equal):
    for c in (origin, target):
        c.run(f"CREATE TABLE {keyspace}.big (id int PRIMARY KEY, b blob)")
    agent.phase("mirror")
    pod.python(f"""
import rawcql, sys
c = rawcql.Client(sys.argv[1], timeout=60)
p = c.prepare("INSERT INTO {keyspace}.big (id, b) VALUES (?, ?)")
for i in range(12):
    c.execute(p, i.to_bytes(4, "big"), bytes([i]) * (1 << 20))
""", origin.address, timeout=120)
    assert equal(keyspace, both=False).rows == 12
