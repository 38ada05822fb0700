# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs with real drivers, an origin of two nodes, every phase from observe to finish; what they saw is docs/compatibility.md.

Each test is one driver, with its protocol versions and compressions at once. The programs write all the time; in each phase they try what
their driver can do and check it themselves (tests/drivers/README.md). Their connections are cut three times. At the end both clusters hold
the same, nothing that was acknowledged is missing, and no cell of the committed table that was good has become worse."""
import os
import time

import compare
import driverlab
import lab
import modeslab
import pytest
import shared
import workload

pytestmark = [
    pytest.mark.drivers,
    # Drivers have time-outs of their own, which a busy machine can make run out: a test that fails is made once more, and that is said.
    pytest.mark.flaky(reruns=1),
    pytest.mark.skipif(int(os.environ.get("LAB_ORIGINS", "1")) < 2, reason="wants an origin of two nodes: make drivers"),
]

DRIVERS = {
    "python": ((3, "snappy"), (4, "lz4"), (5, "none"), (5, "lz4")),
    "node": ((3, "none"), (4, "none")),
    "gocql1": ((3, "snappy"), (4, "none"), (4, "snappy")),
    "gocql2": ((3, "none"), (4, "snappy"), (5, "none"), (5, "lz4")),
    "rust": ((4, "none"), (4, "lz4"), (4, "snappy")),
    "cpp": ((4, "none"),),
    "java": ((3, "lz4"), (4, "snappy"), (5, "none"), (5, "lz4")),
}


class Run:
    """One driver's programs on their way through the phases."""

    def __init__(self, driver, pods, agent, clusters, keyspace, contact=None):
        self.pods, self.agent, self.keyspace, self.other = pods, agent, keyspace, workload.second_keyspace(keyspace)
        self.origin, self.target = clusters
        self.rows = {}
        contact = contact or ",".join(self.origin.addresses)
        self.programs = [driverlab.Program(driver, version, compression, pods[i % len(pods)], contact, keyspace)
                         for i, (version, compression) in enumerate(DRIVERS[driver])]

    def ready(self):
        for p in self.programs:
            answer = p.answer()
            assert answer["protocol"] == p.protocol, f"{p.name} speaks v{answer['protocol']}"
            self.rows[p] = driverlab.Row(p)

    def move(self, table):
        self.calm(self.programs, driverlab.ask(self.programs, f"table {table}"))

    def calm(self, programs, answers):
        """Since they were last asked no application has seen an error."""
        for p, answer in zip(programs, answers):
            assert answer["errors"] == 0, f"{p.name}: {answer['causes']}"

    def count(self):
        """Until every writer has had new answers."""
        return driverlab.ask(self.programs, "count")

    def recover(self):
        """Until they have been without an error for two seconds: connections were closed, and drivers take their time to see what is there.
        Those that have not come to that."""
        calm = dict.fromkeys(self.programs, time.time())
        end = time.time() + 30
        while True:
            for p, answer in zip(self.programs, self.count()):
                if answer["errors"]:
                    calm[p] = time.time()
            lost = [p for p in self.programs if time.time() < calm[p] + 2]
            if not lost or time.time() > end:
                return lost
            time.sleep(0.1)

    def round(self, name, without=()):
        programs = [p for p in self.programs if p not in without]
        for p, answer in zip(programs, driverlab.ask(programs, f"round {name}")):
            self.rows[p].add(name, answer["features"])
        self.calm(programs, driverlab.ask(programs, "count"))

    def cut(self, name):
        driverlab.cut(self.pods)
        lost = self.recover()
        for p in lost:
            self.rows[p].add(name, {"connection": "no: it does not come back"})
        self.round(name, lost)

    def strangers(self):
        """Connections to the origin that do not come from the agent."""
        return [c for address in self.origin.addresses for c in driverlab.clients(address) if c[0] != lab.NODE_IP]

    def known(self):
        """The origin's own word for what they speak, while they are connected to it directly."""
        seen = self.strangers()
        for p, row in self.rows.items():
            found = {(name, version) for address, name, version, protocol, compression in seen
                     if (address, protocol, compression) == (p.pod.address, p.protocol, p.compression)}
            assert len(found) == 1, f"{p.name} is not among {seen}"
            row.driver, row.version = found.pop()

    def equal(self, names, records, target_only=()):
        sides = [compare.Side(c.name, c.address) for c in (self.origin, self.target)]
        try:
            result = compare.settle(*sides, names, records, 30, target_only)
        finally:
            for side in sides:
                side.close()
        assert result.ok(), result.text() + "\n" + "\n".join(result.notes)
        assert result.rows > 100 and (not records or result.acknowledged > 100), result.text()
        return result


@pytest.mark.parametrize("driver", DRIVERS)
def test_driver(make_agent, pods, clusters, keyspace, driver):
    if not driverlab.words(driver):
        pytest.skip(f"{driver} could not be built here (tests/drivers/build.sh)")
    shared.on_both(clusters, *driverlab.schema(workload.second_keyspace(keyspace)))
    run = Run(driver, pods, make_agent(), clusters, keyspace)
    try:
        through_the_phases(run)
    finally:
        for p in run.programs:
            p.kill()
        for row in run.rows.values():
            print("\n".join(row.failed))
    worse = driverlab.write(list(run.rows.values()))
    assert not worse, "\n".join(worse)


CUT_OFF = [(driver, "drop") for driver in DRIVERS] + [("java", "reject"), ("java", "unroutable"), ("python", "reject"), ("python", "unroutable")]


@pytest.mark.parametrize("driver, how", CUT_OFF)
def test_driver_is_cut_off_from_a_replica(make_agent, pods, clusters, keyspace, driver, how):
    """Neither its pod nor the agent's node reaches the second of two nodes, at RF 1: it has connections to both, and all that it can do works."""
    if not driverlab.words(driver):
        pytest.skip(f"{driver} could not be built here (tests/drivers/build.sh)")
    origin, pod = clusters[0], pods[0]
    shared.on_both(clusters, *driverlab.schema(workload.second_keyspace(keyspace)))
    agent = make_agent(connection={"whileObserving": True})
    with modeslab.Cut(how, origin.addresses[1:], (None, pod.name)):
        assert cut_off_round(driver, [pod], agent, clusters, keyspace) == []
        modeslab.assert_fell_back(agent, f"{origin.addresses[1]}:9042")


@pytest.mark.parametrize("driver", ("java", "python"))
def test_what_cut_off_means_without(pods, clusters, keyspace, driver):
    """The same cut and nobody intercepts: the driver has no connection to that node."""
    if not driverlab.words(driver):
        pytest.skip(f"{driver} could not be built here (tests/drivers/build.sh)")
    shared.on_both(clusters, *driverlab.schema(workload.second_keyspace(keyspace)))
    with modeslab.Cut("drop", clusters[0].addresses[1:], (pods[0].name,)):
        failed = cut_off_round(driver, pods[:1], None, clusters, keyspace)
    assert len(failed) == len(DRIVERS[driver]) and all(", nodes: failed: " in f for f in failed), failed


LARGE = 100000


@pytest.mark.parametrize("how", modeslab.CUTS)
@pytest.mark.parametrize("driver", ("java", "python"))
def test_driver_moves_a_large_table(make_agent, pod, clusters, keyspace, driver, how):
    """Half of the rows are on a replica that neither its pod nor the agent's node reaches: all of them go in and come back."""
    if not driverlab.words(driver):
        pytest.skip(f"{driver} could not be built here (tests/drivers/build.sh)")
    origin = clusters[0]
    shared.on_both(clusters, *driverlab.schema(workload.second_keyspace(keyspace)))
    agent = make_agent(connection={"whileObserving": True})
    with modeslab.Cut(how, origin.addresses[1:], (None, pod.name)):
        program = driverlab.Program(driver, *DRIVERS[driver][-1], pod, origin.address, keyspace)
        try:
            program.answer()
            began = time.time()
            program.tell(f"load {LARGE}")
            answer = program.answer(300)
            print(f"{program.name}, {how}: {answer} after {time.time() - began:.1f} s")
            assert answer == {"written": LARGE, "read": LARGE}
            modeslab.assert_fell_back(agent, f"{origin.addresses[1]}:9042")
            assert driverlab.ask([program], "count")[0]["errors"] == 0
            program.end()
        finally:
            program.kill()


def cut_off_round(driver, pods, agent, clusters, keyspace):
    """What did not work, in words. The programs know only the node that can be reached."""
    run = Run(driver, pods, agent, clusters, keyspace, contact=clusters[0].address)
    try:
        run.ready()
        run.round("observe")
        for p in run.programs:
            p.end()
    finally:
        for p in run.programs:
            p.kill()
    return [f for row in run.rows.values() for f in row.failed]


def through_the_phases(run):
    agent, items, later = run.agent, f"{run.keyspace}.items", f"{run.keyspace}.later"
    run.ready()
    run.round("observe")
    run.known()
    # As if it had been copied: what only the first success may write.
    run.origin.run(f"TRUNCATE {run.other}.lwt", f"TRUNCATE {run.other}.counts")

    agent.phase("mirror")
    lab.wait_until(lambda: not run.strangers(), 60, lambda: f"connections through the agent: {run.strangers()}", step=0.5)
    assert not run.recover(), "connections older than the agent were closed, and did not come back"
    run.move(items)
    run.round("mirror")
    run.cut("mirror, cut")

    agent.phase("cutover")
    run.round("cutover")
    run.cut("cutover, cut")

    run.move(later)
    agent.settled()
    run.equal([run.other], (), ("early",))

    agent.phase("finish")
    run.round("finish")
    run.cut("finish, cut")
    for p in run.programs:
        p.end()
    agent.settled()
    result = run.equal([run.keyspace], [p.record for p in run.programs], ("later",))
    assert agent.metric("cqlferry_unmirrored_total") == 0, agent.gaps()
    print(f"{', '.join(p.name for p in run.programs)}: {result.text()}")
