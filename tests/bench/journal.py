# SPDX-License-Identifier: Apache-2.0
"""What the mirror's journal costs and reaches: `BENCH=journal make bench`. Fake origin and target; one agent for each way
to keep the journal, all up at the same time, state on the disk of BENCH_DISK (default: the run's temporary directory).

  cost      a mirrored write with 1 and with 16 connections: p50, CPU; agents in turn within each round
  commit    128 connections: writes a second, and the disk's own rate of fdatasync with a write of that group's size
  drain     the target stops, writes fill the journal, the target goes on: the rate of filling and of sending
  recovery  the same with SIGKILL instead: bytes and seconds as the agent counts them when it is started again
  space     bytes of journal for each write over bytes of its request, both as the agent counts them

Output in BUILD/bench: journal.json, and journal_report.py makes docs/benchmarks-journal.md of it.
"""
import datetime
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import journal_report
from contestants import NotRun, Process

SYNCS = ("memory", "none", "interval", "commit")
GROUP = 128
FILL = int(os.environ.get("BENCH_FILL", "400000"))
BACKLOG, QUEUED = "cqlferry_mirror_backlog_records", 'cqlferry_mirror_records_total{state="queued"}'


def write_case(connections, size=100, inflight=1):
    placement = "node" if connections * inflight == 1 else "free"
    return {"placement": placement, "protocol": 4, "operation": "write", "bytes": size, "connections": connections,
            "inflight": inflight}


class Agent:
    """The agent on a port of its own, phase mirror, with one worker: one journal, whose group is all connections."""

    cgroup = None

    def __init__(self, lab, backend, disk, sync):
        self.lab, self.backend, self.sync = lab, backend, sync
        self.address = f"127.0.30.{120 + SYNCS.index(sync)}"
        self.host = f"{self.address}:9042"
        self.state = disk / sync
        self.log = lab.directory / f"journal-{sync}.log"

    def start(self):
        self.state.mkdir(exist_ok=True)
        side = "{0}: {{contactPoints: ['{1}'], username: bench, password: bench}}\n"
        config = self.lab.directory / f"journal-{self.sync}.yaml"
        config.write_text(
            side.format("origin", self.backend.origin) + side.format("target", self.backend.target)
            + f"listen: {{address: {self.address}, port: 9042}}\nintercept: {{enabled: false}}\nphase: {{initial: mirror}}\n"
            f"workers: 1\nlimits: {{mirrorBytes: 8GiB}}\njournal: {{sync: {self.sync}}}\n"
            f"state: {{directory: {self.state}}}\nadmin: {{socket: {self.state}/admin.sock}}\n"
            f"http: {{address: {self.address}, port: 9180}}\nlog: {{level: info}}\n")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CQLFERRY_", "SOURCE_", "ASTRA_"))}
        self.process = Process([self.lab.build / "cqlferry", "agent", "--config", config], self.log, clean)
        deadline = time.monotonic() + 30
        while not self.lab.works(self, write_case(1)):
            if not self.process.alive():
                raise NotRun(f"ended at once: {self.process.last_words()}")
            if time.monotonic() > deadline:
                raise NotRun(f"no request went through within 30 s: {self.process.last_words()}")
            time.sleep(0.1)
        return self

    def kill(self):
        self.process.child.kill()
        self.process.child.wait()

    def metrics(self):
        """{name: sum over all labels}, and each labelled series under its full name."""
        out = {}
        with urllib.request.urlopen(f"http://{self.address}:9180/metrics", timeout=10) as page:
            for line in page.read().decode().splitlines():
                if line and not line.startswith("#"):
                    series, _, value = line.rpartition(" ")
                    name = series.split("{")[0]
                    out[series] = float(value)
                    if name != series:
                        out[name] = out.get(name, 0) + float(value)
        return out


class Journal:
    def __init__(self, lab, backend, disk):
        self.lab, self.backend, self.disk = lab, backend, disk
        self.rows, self.absent, self.agents = [], {}, {}

    def wait_writes(self, base, count, seconds, step=0.002):
        """Until the target has answered that many writes more than base."""
        deadline = time.monotonic() + seconds
        while (missing := count - (self.backend.target_writes() - base)) > 0:
            if time.monotonic() > deadline:
                raise NotRun(f"{missing} of {count} writes had not reached the target {seconds} s after")
            time.sleep(step)

    def note(self, what, agent, number, **figures):
        self.rows.append({"what": what, "sync": agent.sync, "round": number, **figures})

    # ------------------------------------------------------------------ cost, space, commit
    def measure(self, what, agent, case, number, seconds):
        """One slice of writes, its CPU taken when the target has them all."""
        on_agent, on_servers = ({0}, {1}) if case["placement"] == "node" else (set(range(os.cpu_count())),) * 2
        for one, cpus in [(agent.process, on_agent)] + [(b, on_servers) for b in self.backend.processes]:
            one.pin(cpus)
        base, cpu = self.backend.target_writes(), agent.process.cpu_seconds()
        r = self.lab.run_load(agent.host, case, seconds=seconds, warmup=seconds / 5)
        if r["errors"]:
            raise NotRun(f"{r['errors']} errors: {r['why']}")
        self.wait_writes(base, r["requests_total"], 10)
        cpu = agent.process.cpu_seconds() - cpu
        self.note(what, agent, number, connections=case["connections"], bytes=case["bytes"], p50_us=r["p50_us"], p99_us=r["p99_us"],
                  ops_per_s=r["ops_per_s"], cpu_us=cpu / max(1, r["requests_total"]) * 1e6)

    def settled(self, agent):
        """Its metrics once the journal's counter, which follows at intervals, has stood still for as long as two of them."""
        seen, since = agent.metrics(), time.monotonic()
        while time.monotonic() - since < 2.5:
            time.sleep(0.2)
            now = agent.metrics()
            if now["cqlferry_journal_written_bytes_total"] != seen["cqlferry_journal_written_bytes_total"]:
                since = time.monotonic()
            seen = now
        return seen

    def space(self, agent, size, requests):
        if "cqlferry_journal_written_bytes_total" not in agent.metrics():
            raise NotRun("cqlferry_journal_written_bytes_total is not there")
        before, base = self.settled(agent), self.backend.target_writes()
        r = self.lab.run_load(agent.host, write_case(16, size), requests=requests)
        if r["errors"]:
            raise NotRun(f"{r['errors']} errors: {r['why']}")
        self.wait_writes(base, requests, 30)
        after = self.settled(agent)
        written, queued, received, asked = (after[k] - before[k] for k in (
            "cqlferry_journal_written_bytes_total", QUEUED, 'cqlferry_client_bytes_total{direction="in"}', "cqlferry_requests_total"))
        self.note("space", agent, 1, bytes=size, journal_bytes=written / queued, request_bytes=received / asked)

    def cost(self, rounds, seconds):
        for number in range(1, rounds + 1):
            for case in (write_case(1), write_case(16), write_case(16, 10240)):
                agents = list(self.agents.values())
                turn = number % len(agents)
                for agent in agents[turn:] + agents[:turn]:
                    if agent.sync != "commit" or case["connections"] > 1:
                        self.attempt("cost", agent, self.measure, "cost", agent, case, number, seconds)
            self.lab.say(f"journal: cost, round {number} of {rounds}")

    def sync_rate(self, size, number, seconds):
        """The faster of a file that is written over and one that grows: how the journal does it is its own affair."""
        rates = []
        for more in ([], ["--appending"]):
            done = subprocess.run([self.lab.tool("fsyncrate"), "--file", self.disk / "fsyncrate", "--bytes", str(size), "--seconds",
                                   str(seconds), *more], capture_output=True, text=True)
            if done.returncode:
                raise NotRun(f"fsyncrate: {done.stderr.strip()}")
            rates.append(json.loads(done.stdout))
        best = max(rates, key=lambda r: r["per_s"])
        self.rows.append({"what": "fdatasync", "sync": None, "round": number, **best})

    def commit(self, rounds, seconds):
        agent, without = self.agents.get("commit"), self.agents.get("none")
        if not agent or not without:
            return
        sizes = [r["journal_bytes"] for r in self.rows if r["what"] == "space" and r["bytes"] == 100]
        if not sizes:
            raise NotRun("the journal's bytes for each write, and so the size of a group, are not known")
        for number in range(1, rounds + 1):
            self.sync_rate(round(GROUP * sizes[-1]), number, seconds / 2)
            for one in (agent, without):
                self.measure("group", one, write_case(GROUP), number, seconds)
            self.lab.say(f"journal: commit, round {number} of {rounds}")

    # ------------------------------------------------------------------ drain, recovery
    def fill(self, agent, count, size):
        """Writes while the target stands still; (writes of the target before it, writes a second)."""
        base, target = self.backend.target_writes(), self.backend.processes[1].child
        target.send_signal(signal.SIGSTOP)
        try:
            r = self.lab.run_load(agent.host, write_case(16, size, 16), requests=count)
            if r["errors"]:
                raise NotRun(f"{r['errors']} errors: {r['why']}")
            waiting = agent.metrics()[BACKLOG]
            if waiting < count:
                raise NotRun(f"only {waiting:.0f} of {count} writes waited for a target that stood still")
        except BaseException:
            target.send_signal(signal.SIGCONT)
            raise
        return base, r["ops_per_s"]

    def release(self):
        self.backend.processes[1].child.send_signal(signal.SIGCONT)

    def drain(self, agent, number):
        base, rate = self.fill(agent, FILL, 100)
        begun = time.monotonic()
        self.release()
        self.wait_writes(base, FILL, 60)
        self.note("drain", agent, number, fill_per_s=rate, drain_per_s=FILL / (time.monotonic() - begun))

    def recovery(self, agent, number, count, size):
        base, _ = self.fill(agent, count, size)
        agent.kill()
        self.release()
        begun = time.monotonic()
        agent.start()
        took, found = time.monotonic() - begun, agent.metrics()
        recovered, us = found.get("cqlferry_journal_recovered_bytes_total"), found.get("cqlferry_journal_recovery_microseconds")
        if not recovered or not us:
            raise NotRun("the agent counts no bytes that it recovered")
        self.wait_writes(base, count, 60)
        deadline = time.monotonic() + 60
        while (left := agent.metrics()[BACKLOG]) > 0:
            if time.monotonic() > deadline:
                raise NotRun(f"{left:.0f} recovered writes were not delivered within 60 s")
            time.sleep(0.05)
        self.note("recovery", agent, number, bytes=size, recovered=recovered, seconds=us / 1e6, start_seconds=took)

    # ------------------------------------------------------------------
    def attempt(self, name, agent, function, *arguments):
        """A measurement that cannot be made goes into the report with its reason; the run goes on."""
        try:
            function(*arguments)
        except (NotRun, OSError, subprocess.TimeoutExpired) as why:
            self.absent.setdefault(f"{name}, {agent.sync if agent else 'commit'}", str(why))
            self.lab.say(f"journal: {name}: {why}")
            if agent and not agent.process.alive():
                self.agents.pop(agent.sync, None)

    def measure_all(self, rounds, seconds):
        for sync in SYNCS:
            agent = Agent(self.lab, self.backend, self.disk, sync)
            try:
                self.agents[sync] = agent.start()
            except NotRun as why:
                self.absent[f"journal.sync: {sync}"] = str(why)
                self.lab.say(f"journal: {sync} does not take part: {why}")
                agent.process.stop()
        try:
            if self.agents:
                self.cost(rounds, seconds)
            if "interval" in self.agents:
                for size, requests in ((100, 20000), (10240, 5000)):
                    self.attempt("space", self.agents["interval"], self.space, self.agents["interval"], size, requests)
            self.attempt("commit", None, self.commit, rounds, 2 * seconds)
            for number in range(1, 4):
                for sync in ("memory", "interval"):
                    if sync in self.agents:
                        self.attempt("drain", self.agents[sync], self.drain, self.agents[sync], number)
            self.lab.say("journal: drain done")
            if "interval" in self.agents:
                for count, size in ((FILL, 100), (FILL // 10, 10240)):
                    for number in range(1, 4):
                        self.attempt("recovery", self.agents["interval"], self.recovery, self.agents["interval"], number, count, size)
            self.lab.say("journal: recovery done")
        finally:
            for agent in self.agents.values():
                agent.process.stop()


def run(lab, backend, about, rounds, docs):
    """The whole part; True when every agent took part and nothing failed."""
    disk = pathlib.Path(tempfile.mkdtemp(prefix="journal-", dir=os.environ.get("BENCH_DISK", lab.directory)))
    journal = Journal(lab, backend, disk)
    try:
        backend.start()
        backend.tables([100, 10240], warm=0)
        journal.measure_all(rounds, about["seconds"])
    finally:
        backend.stop()
        about["disk"] = subprocess.run(["df", "--output=fstype", disk], capture_output=True, text=True).stdout.split()[-1]
        shutil.rmtree(disk, ignore_errors=True)
    about |= {"took_s": round(time.monotonic() - lab.begun), "absent": journal.absent, "fill": FILL,
              "date": datetime.date.today().isoformat()}
    (lab.out / "journal.json").write_text(json.dumps({"run": about, "rows": journal.rows}, indent=0) + "\n")
    journal_report.write(lab.out)
    if not journal.absent or os.environ.get("BENCH_WRITE") == "1":
        shutil.copy(lab.out / "benchmarks-journal.md", docs)
        lab.say("docs/benchmarks-journal.md is new")
    lab.say(f"results: {lab.out}/journal.json, page: {lab.out}/benchmarks-journal.md")
    return not journal.absent
