# SPDX-License-Identifier: Apache-2.0
"""Clusters once for the whole run, pods once, an agent and keyspaces for each test."""
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402
import lab  # noqa: E402
import workload  # noqa: E402

ORIGINS = int(os.environ.get("LAB_ORIGINS", "1"))
RESULTS = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: belongs to `make check`")
    config.addinivalue_line("markers", "offline: needs no cluster")
    config.addinivalue_line("markers", "drivers: the driver matrix, `make drivers`")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: "ring" in item.fixturenames)  # last, so that it runs beside no others
    if "LAB_CGROUP" in os.environ:
        return
    skip = pytest.mark.skip(reason="outside the lab: run tests/e2e/run.sh")
    for item in items:
        if "offline" not in item.keywords:
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    """pytest's own last line has a decoration that not every reader knows; this one is plain."""
    count = {k: len(terminalreporter.stats.get(k, [])) for k in ("passed", "failed", "error", "skipped", "rerun")}
    line = f"e2e: {count['passed']} passed, {count['failed'] + count['error']} failed"
    if count["skipped"]:
        line += f", {count['skipped']} skipped"
    terminalreporter.write_line(line)
    for report in terminalreporter.stats.get("rerun", []):
        why = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
        terminalreporter.write_line(f"made twice: {report.nodeid}: {' '.join(' '.join(why).split())[:1000]}")
    seconds = {}
    for report in (r for reports in terminalreporter.stats.values() for r in reports if hasattr(r, "duration")):
        name = report.nodeid.partition(".py")[0].removeprefix("test_")
        seconds[name] = seconds.get(name, 0) + report.duration
    terminalreporter.write_line("seconds: " + ", ".join(f"{name} {s:.0f}" for name, s in sorted(seconds.items(), key=lambda x: -x[1])))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        RESULTS[item.nodeid] = report
    if report.failed:
        for agent in getattr(item, "lab_agents", []):
            report.sections.append((f"agent {agent.number}, end of its log", lab.tail(agent.log_path, 60)))


@pytest.fixture(scope="session")
def clusters():
    """(origin, target), with passwords; nothing but the system's keyspaces in them."""
    # Plain and TLS on one port, for the tests of either; with TLS the target wants certificates.
    origin = lab.Cassandra("origin", 1, ORIGINS, version=os.environ.get("LAB_ORIGIN_VERSION"), options=("--auth", "--tls", "optional", "--set", "prepared_statements_cache_size: 64MiB"))
    # Of a compressed commit log nothing survives a SIGKILL but what was synced, every 10 s; of a plain one, all but 100 ms.
    target = lab.Cassandra("target", 2, 1, version=os.environ.get("LAB_TARGET_VERSION"),
                           options=("--auth", "--tls", "optional-mutual", "--set", "commitlog_compression: [{class_name: LZ4Compressor}]"))
    try:
        origin.start(rest=False)
        target.start()
        origin.wait(only=0)
        origin.start(first=False)
        target.wait()
        origin.wait()
        yield origin, target
    finally:
        origin.save_logs()
        target.save_logs()


@pytest.fixture(scope="session")
def origin(clusters):
    return clusters[0]


@pytest.fixture(scope="session")
def target(clusters):
    return clusters[1]


@pytest.fixture(scope="session")
def ring():
    """A cluster of two nodes, each with a part of every table, for the tests that need one."""
    # Two JVMs that have just begun, on a machine that others use as well: their time-outs are not what is tested.
    patience = [x for k in ("write", "read", "range", "truncate") for x in ("--set", f"{k}_request_timeout: 60s")]
    cluster = lab.Cassandra("ring", 5, 2, options=("--auth", *patience))
    try:
        cluster.start()
        cluster.wait()
        yield cluster
    finally:
        cluster.save_logs()
        for i in range(len(cluster.nodes)):
            cluster.stop(i, kill=True)


@pytest.fixture(scope="session")
def pods():
    return [lab.Pod(f"pod{i}", f"10.77.0.{10 + i}") for i in (1, 2, 3)]


@pytest.fixture(scope="session")
def pod(pods):
    return pods[0]


@pytest.fixture
def keyspace(clusters, request):
    """A pair of keyspaces of this test alone, on both clusters; gone afterwards, so that schemas stay equal."""
    name = "t" + "".join(c for c in request.node.name.replace("test_", "") if c.isalnum())[:30].lower()
    names = (name, workload.second_keyspace(name))

    def both(*statements):  # at once: a schema change takes a quarter of a second on each
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda c: c.run(*statements), clusters))

    both(*[f"DROP KEYSPACE IF EXISTS {k}" for k in names], *workload.schema(name))
    yield name
    lab.Load.kill_all()
    both(*[f"DROP KEYSPACE IF EXISTS {k}" for k in names])


@pytest.fixture
def make_agent(clusters, request):
    """make_agent(ebpf=True, start=True, origin=, target=, **configuration): an agent that is gone after the test."""
    agents = []
    request.node.lab_agents = agents

    def make(start=True, origin=None, target=None, **config):
        agent = lab.Agent(origin or clusters[0], target or clusters[1], **config)
        agents.append(agent)
        return agent.start() if start else agent

    yield make
    lab.Load.kill_all()
    for agent in agents:
        agent.remove()


@pytest.fixture
def agent(make_agent):
    return make_agent()


@pytest.fixture
def equal(clusters):
    """equal(keyspace, loads): both clusters hold the same, and just what was acknowledged. seconds: how long the mirror
    may need until then; slack: how many seconds an expiry may differ."""

    def check(keyspace, loads=(), seconds=20, both=True, slack=2.5):
        sides = [compare.Side(c.name, c.address) for c in clusters]
        try:
            names = [keyspace, workload.second_keyspace(keyspace)] if both else [keyspace]
            result = compare.settle(*sides, names, [x.record for x in loads], seconds, slack=slack)
        finally:
            for s in sides:
                s.close()
        assert result.ok(), result.text() + "\n" + "\n".join(result.notes)
        assert result.rows > 0 or not loads, "nothing was compared"
        return result

    return check
