# SPDX-License-Identifier: Apache-2.0
"""A keyspace that the tests of one file share, since a schema change takes longer than most of them; each test finds it empty."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import cqlrows
import cqlwire
import lab
import workload


def on_both(clusters, *statements):
    """At once on both: one does not wait for the other."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda c: c.run(*statements), clusters))


@contextlib.contextmanager
def keyspaces(clusters, name, *more):
    """The keyspace and its second one with workload's tables, and what else is wanted, on both clusters."""
    names = name, workload.second_keyspace(name)
    drop = [f"DROP KEYSPACE IF EXISTS {k}" for k in names]
    on_both(clusters, *drop, *workload.schema(name), *more)
    try:
        yield names
    finally:
        on_both(clusters, *drop)


class Pair:
    """Both clusters' rows, for one test after the other."""

    def __init__(self, clusters, names):
        self.clusters, self.names = clusters, names
        self.origin, self.target = cqlrows.readers(clusters)

    def close(self):
        self.origin.close()
        self.target.close()

    def empty(self):
        for cluster, reader in zip(self.clusters, (self.origin, self.target)):
            filled = {(k, table) for k in self.names for table, _ in reader.read(k)}
            if filled:
                cluster.run(*[f"TRUNCATE {k}.{t}" for k, t in filled])

    def equal(self, keyspace=None, seconds=20, times=lambda x, y: x == y):
        """The origin's rows, once the target has the same; otherwise the test fails with what differs. times: which
        WRITETIMEs pass for equal."""
        found, rows = cqlrows.settle(self.origin, self.target, keyspace or self.names[0], seconds, times=times)
        assert not found, f"{len(found)} differences\n" + "\n".join(words for _, words in found[:8])
        return rows

    def there(self, keyspace=None):
        """What the target has now."""
        return self.target.read(keyspace or self.names[0])


def mirroring(agent):
    agent.phase("mirror")
    return agent


def connect(agent, version=4, user=lab.USER):
    """A client that is pointed at the agent; the tests' roles have their names for passwords."""
    return cqlwire.Client(lab.NODE_IP, agent.config["listen"]["port"], version=version, user=user, password=user, timeout=30)


def good(answer):
    assert answer.code is None, answer
    return answer


def delivered(agent, seconds=30):
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, seconds, "an empty backlog")
