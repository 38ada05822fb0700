# SPDX-License-Identifier: Apache-2.0
"""Measures the contestants (contestants.py) and writes what report.py makes a page of. Started by bench.sh.

  backends   fake       two fakecql servers, origin and target
             cassandra  two one-node clusters of Cassandra, origin and target
  a cell     one contestant in one case on one backend; each is measured ROUNDS times
  a round    every cell once, contestants one after the other within a case, the order turned by one each round, so
             that what the machine does meanwhile meets all of them alike

BENCH=journal and BENCH=copy measure something else: see journal.py, copybench.py.

Output in BUILD/bench: results.json (one object a measurement), run.json (machine, mode, who did not run and why),
benchmarks.md, benchmarks.svg. The two last are copied to docs/ after a complete full run, or with BENCH_WRITE=1.
"""
import datetime
import fcntl
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import contestants
import copybench
import journal
import report
from contestants import Contestant, NotRun, Process

HERE = pathlib.Path(__file__).resolve().parent
MODE = os.environ.get("BENCH", "full")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3" if MODE == "copy" else "5"))
PREFIX = "cqlferry-bench-"
KEYS = ("placement", "protocol", "operation", "bytes", "connections", "inflight")


# Where client, contestant and fake servers may run; None = where the kernel puts them. One request at a time makes
# every hop a wake-up, and waking an idle CPU costs a virtual machine more than all the rest, so where the kernel
# happens to put things would be what is measured. `node`: an agent on the client's node, the server elsewhere;
# `one-cpu`: the work alone. Cassandra's threads are never pinned.
PLACEMENTS = {"free": (None, None, None), "node": ({0}, {0}, {1}), "one-cpu": ({0}, {0}, {0})}


def case(operation="read", size=100, connections=1, protocol=4, inflight=1, placement=None):
    """What is measured; the defaults are the base case, from which `full` varies one factor at a time."""
    placement = placement or ("node" if connections * inflight == 1 else "free")
    return dict(zip(KEYS, (placement, protocol, operation, size, connections, inflight)))


FULL = [case(), case(connections=16), case(connections=128), case(inflight=32), case(size=10240), case(size=1048576),
        case("write"), case("batch"), case(protocol=5)]
FAKE_ONLY = [case(placement="free"), case(placement="one-cpu")]
# (backend, case, contestants); at most 30 cells.
QUICK = [
    ("fake", case(), contestants.ALL),
    ("fake", case(placement="free"), ["direct", "haproxy", "cqlferry-explicit", "cqlferry", "zdm"]),
    ("fake", case("write"), ["direct", "haproxy", "cqlferry-explicit", "cqlferry-mirror", "zdm"]),
    ("fake", case(connections=16), ["direct", "haproxy", "cqlferry-explicit", "cqlferry", "zdm"]),
    ("cassandra", case(), ["direct", "cqlferry", "cqlferry-explicit", "zdm"]),
    ("cassandra", case(connections=16), ["direct", "cqlferry", "cqlferry-explicit", "zdm"]),
]


class Backend:
    """An origin and a target. `processes` are the servers' where they are ours to read."""

    def __init__(self, name, lab):
        self.name, self.lab, self.processes = name, lab, []
        base = 10 if name == "fake" else 20
        self.origin, self.target = f"127.0.30.{base + 1}", f"127.0.30.{base + 2}"

    def lab_script(self, *argv, check=True):
        env = dict(os.environ, LAB_RUN=str(self.lab.directory / "cassandra"), LAB_JIT="full")
        done = subprocess.run([os.environ["BENCH_LAB"], *argv], env=env, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if check and done.returncode:
            raise NotRun(f"Cassandra did not start: {done.stdout.strip()[-300:]}")

    def start(self):
        if self.name == "fake":
            for side in ("origin", "target"):
                self.processes.append(Process(
                    [self.lab.tool("fakecql"), "--listen", f"{getattr(self, side)}:9042", "--cluster", side, "--counts"],
                    self.lab.directory / f"fake-{side}.log"))
            time.sleep(0.3)
            return
        for side in ("origin", "target"):
            self.lab_script("start", "bench-" + side, getattr(self, side))
        for side in ("origin", "target"):
            self.lab_script("wait", "bench-" + side)

    def tables(self, sizes, warm):
        """Tables and rows on both clusters, and some traffic on each until the JVM has compiled what it runs."""
        for host in (self.origin, self.target):
            for size in sizes:
                self.lab.run_load(f"{host}:9042", case(size=size), seconds=0.5, setup=True)
        if self.name == "cassandra":
            for host in (self.origin, self.target):
                for work in (case(connections=16), case("write", connections=16), case(protocol=5, connections=8)):
                    self.lab.run_load(f"{host}:9042", work, seconds=warm)

    def target_writes(self):
        """How many writes the fake target has answered; it prints its counts when asked by a signal."""
        log = self.lab.directory / "fake-target.log"
        lines = log.read_text().count("\n")
        self.processes[1].child.send_signal(signal.SIGUSR1)
        while log.read_text().count("\n") == lines:
            time.sleep(0.001)
        return json.loads(log.read_text().splitlines()[-1])["write"]

    def stop(self):
        for p in self.processes:
            p.stop()
        if self.name == "cassandra":
            for side in ("origin", "target"):
                self.lab_script("stop", "bench-" + side, check=False)


def sweep():
    """Removes what a killed run left: directories that nobody has locked, cgroups that belong to no directory."""
    temporary, mount = pathlib.Path(tempfile.gettempdir()), contestants.cgroup2_mount()
    for old in temporary.glob(PREFIX + "*"):
        try:
            with open(old / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            pass
        shutil.rmtree(old, ignore_errors=True)
    for old in mount.glob(PREFIX + "*") if mount else []:
        if not (temporary / old.name).exists():
            for path in [*old.glob("*/"), old]:
                try:
                    path.rmdir()
                except OSError as e:
                    print(f"bench: {path} of an earlier run is still there: {e}", file=sys.stderr)


class Lab:
    def __init__(self, build):
        self.build = pathlib.Path(build)
        self.out = self.build / "bench"
        self.out.mkdir(parents=True, exist_ok=True)
        sweep()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
        self.lock = open(self.directory / "lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.cgroup, self.results, self.absent, self.begun = self.make_cgroup(), [], {}, time.monotonic()

    def make_cgroup(self):
        mount = contestants.cgroup2_mount()
        if not mount:
            return None
        path = mount / self.directory.name
        try:
            path.mkdir()
        except OSError:
            return None
        return path

    def done(self):
        if self.cgroup:
            try:
                self.cgroup.rmdir()
            except OSError as e:
                print(f"bench: {self.cgroup} is still there: {e}", file=sys.stderr)
        shutil.rmtree(self.directory, ignore_errors=True)

    def tool(self, name):
        return self.build / "tests" / "bench" / name

    def say(self, text):
        print(f"[{time.monotonic() - self.begun:5.0f} s] {text}", flush=True)

    # ------------------------------------------------------------------ one measurement
    def load_argv(self, host, c, seconds=None, requests=None, warmup=0.0, setup=False):
        argv = [self.tool("cqlload"), "--host", host, "--protocol", c["protocol"], "--op", c["operation"],
                "--bytes", c["bytes"], "--connections", c["connections"], "--inflight", c["inflight"],
                "--warmup", warmup]
        argv += ["--requests", requests] if requests else ["--seconds", seconds]
        return [str(a) for a in argv] + (["--setup"] if setup else [])

    def run_load(self, host, c, cgroup=None, check=True, timeout=180, **how):
        def enter():
            if cgroup:
                (cgroup / "cgroup.procs").write_text("0")
            if PLACEMENTS[c["placement"]][0]:
                os.sched_setaffinity(0, PLACEMENTS[c["placement"]][0])

        done = subprocess.run(self.load_argv(host, c, **how), capture_output=True, text=True, preexec_fn=enter,
                              timeout=timeout)
        if not done.stdout.startswith("{"):
            if check:
                raise NotRun(f"cqlload: {done.stderr.strip()[-300:]}")
            return None
        result = json.loads(done.stdout)
        result["why"] = done.stderr.strip()[-200:] if result["errors"] else ""
        return result

    def works(self, contestant, c=None, requests=200):
        """Do requests go through a contestant, without an error and in reasonable time?"""
        try:
            r = self.run_load(contestant.host, c or case(), contestant.cgroup, False, 5, requests=requests)
        except subprocess.TimeoutExpired:
            return False
        return bool(r) and not r["errors"]

    def measure(self, contestant, c, number, seconds, warmup):
        p, backend = contestant.process, contestant.backend
        everywhere, (_, contestant_on, servers_on) = set(range(os.cpu_count())), PLACEMENTS[c["placement"]]
        for one, cpus in [(p, contestant_on)] * bool(p) + [(b, servers_on) for b in backend.processes]:
            one.pin(cpus or everywhere)
        mirrored = backend.processes and c["operation"] != "read" and contestant.name in contestants.MIRRORING
        writes = backend.target_writes() if mirrored else 0
        before = p.cpu_seconds() if p else 0
        backend_before = sum(b.cpu_seconds() for b in backend.processes)
        r = self.run_load(contestant.host, c, contestant.cgroup, seconds=seconds, warmup=warmup)
        deadline = time.monotonic() + 10
        while mirrored and (missing := r["requests_total"] - (backend.target_writes() - writes)) > 0:
            if time.monotonic() > deadline:
                raise NotRun(f"{missing} of {r['requests_total']} writes had not reached the target 10 s after")
            time.sleep(0.02)
        cpu = (p.cpu_seconds() - before) if p else None
        backend_cpu = sum(b.cpu_seconds() for b in backend.processes) - backend_before
        total = max(1, r["requests_total"])
        self.results.append({
            "contestant": contestant.name, "backend": backend.name, **c, "round": number,
            "p50_us": r["p50_us"], "p99_us": r["p99_us"], "p999_us": r["p999_us"], "ops_per_s": r["ops_per_s"],
            "cpu_us_per_op": round(cpu / total * 1e6, 2) if p else None,
            "rss_kib": p.memory_kib() if p else None, "errors": r["errors"], "why": r["why"],
            "backend_cpu_us_per_op": round(backend_cpu / total * 1e6, 2) if backend.processes else None})

    def measure_or_say(self, one, c, number, seconds, warmup):
        """A contestant that has died or cannot do a case goes into the report with its reason; the run goes on."""
        reasons, where = self.absent.setdefault(one.name, {}), one.backend.name
        if one.process and not one.process.alive():
            if where not in reasons:
                reasons[where] = f"it ended in round {number}: {one.process.last_words()}"
                self.say(f"{where}: {one.name}: {reasons[where]}")
            return
        try:
            self.measure(one, c, number, seconds, warmup)
        except (NotRun, subprocess.TimeoutExpired) as why:
            reasons[f"{where}, {report.case_name(c)}"] = str(why)
            self.say(f"{where}: {one.name}, {report.case_name(c)}: {why}")

    def rounds(self, backend, cells, seconds, warmup):
        """cells: list of (case, contestants). Who cannot start is left out, with the reason in run.json."""
        names = [n for n in contestants.ALL if any(n in who for _, who in cells)]
        up = {}
        try:
            for name in names:
                one = Contestant(name, self)
                try:
                    up[name] = one
                    one.start(backend)
                except NotRun as why:
                    self.absent.setdefault(name, {})[backend.name] = str(why)
                    self.say(f"{backend.name}: {name} does not take part: {why}")
                    up.pop(name).stop()
            for number in range(1, ROUNDS + 1):
                for c, who in cells:
                    running = [up[n] for n in who if n in up]
                    turn = number % max(1, len(running))
                    for one in running[turn:] + running[:turn]:
                        self.measure_or_say(one, c, number, seconds, warmup)
                self.say(f"{backend.name}: round {number} of {ROUNDS} done")
        finally:
            for one in up.values():
                one.stop()

    # ------------------------------------------------------------------ memory
    def memory(self, backend, names):
        """Resident memory at rest, with idle connections, and what a 64 MiB result adds; each freshly started."""
        for name in names:
            one = Contestant(name, self)
            try:
                one.start(backend)
                time.sleep(0.5)
                self.memory_row(one, "idle", 0, one.process.memory_kib())
                for count in (1000, 5000):
                    idle = Process([self.tool("cqlload"), "--host", one.host, "--idle", count],
                                   self.directory / "idle.log", cgroup=one.cgroup, stdin=subprocess.PIPE)
                    try:
                        self.wait_for(lambda: f"idle {count}\n" in self.text("idle.log"), 90, idle,
                                      f"{count} idle connections")
                        time.sleep(1)
                        self.memory_row(one, "idle", count, one.process.memory_kib())
                    finally:
                        idle.stop()
                        (self.directory / "idle.log").unlink()
                one.stop()
                one = Contestant(name, self)
                one.start(backend)
                self.works(one, requests=1000)
                before = self.at_rest(one.process)
                one.process.peak_reset()
                if not self.works(one, case(size=67108864), requests=3):
                    raise NotRun("a result of 64 MiB did not get through")
                self.memory_row(one, "read", 1, one.process.memory_kib(), bytes=67108864,
                                rss_growth_kib=one.process.memory_kib("VmHWM") - before)
            except (NotRun, subprocess.TimeoutExpired) as why:
                self.absent.setdefault(name, {}).setdefault("memory", str(why))
                self.say(f"memory: {name}: {why}")
            finally:
                one.stop()
        self.say("memory: done")

    @staticmethod
    def at_rest(process):
        """Resident memory once it has not changed for a second: what a start leaves to do is no growth by what comes then."""
        deadline, since, rss = time.monotonic() + 15, time.monotonic(), process.memory_kib()
        while time.monotonic() < min(since + 1, deadline):
            time.sleep(0.1)
            if (now := process.memory_kib()) != rss:
                since, rss = time.monotonic(), now
        return rss

    def memory_row(self, one, operation, connections, rss, **more):
        self.results.append({
            "contestant": one.name, "backend": one.backend.name, "placement": "free", "protocol": 4,
            "operation": operation, "bytes": 0, "connections": connections, "inflight": 1, "round": 1, "p50_us": None,
            "p99_us": None, "p999_us": None, "ops_per_s": None, "cpu_us_per_op": None, "rss_kib": rss, "errors": 0,
            "why": "", **more})

    def text(self, name):
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, what, seconds, process, name):
        deadline = time.monotonic() + seconds
        while not what():
            if not process.alive() or time.monotonic() > deadline:
                raise NotRun(f"{name}: {process.last_words()}")
            time.sleep(0.05)


def first_line(argv):
    try:
        text = subprocess.run(argv, capture_output=True, text=True).stdout.strip()
        return text.splitlines()[0] if text else ""
    except OSError:
        return ""


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"model name\s*:\s*(.*)", cpuinfo)
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1))
    return {"cpu": cpu.group(1) if cpu else platform.machine(), "cpus": os.cpu_count(),
            "memory_gib": round(memory / 2**20), "kernel": platform.release(), "virtual": "hypervisor" in cpuinfo,
            "load": os.getloadavg()[0], "haproxy": first_line(["/usr/sbin/haproxy", "-v"]).split(" 20")[0],
            "commit": first_line(["git", "-C", str(HERE), "describe", "--always", "--dirty"])}


def main():
    if sys.argv[1] == "--sweep":
        return sweep()
    lab = Lab(sys.argv[1])
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit("bench: stopped by a signal"))
    about = {"mode": MODE, "rounds": ROUNDS, "date": datetime.date.today().isoformat(), "machine": machine()}
    backends = os.environ.get("BENCH_BACKENDS", "fake cassandra").split()
    wanted = os.environ.get("BENCH_CONTESTANTS", " ".join(contestants.ALL)).split()
    quick = MODE == "quick"
    unknown = set(wanted) - set(contestants.ALL) or set(backends) - {"fake", "cassandra"}
    if MODE not in ("quick", "full", "journal", "copy") or ROUNDS < 1 or unknown:
        sys.exit("bench: BENCH is quick, full, journal or copy, BENCH_BACKENDS of fake and cassandra, BENCH_CONTESTANTS of "
                 + " ".join(contestants.ALL))
    if not os.environ.get("ZDM_PROXY") and "zdm" in wanted:
        wanted.remove("zdm")
        lab.absent["zdm"] = {"all": "ZDM_PROXY does not name its binary"}
    seconds, warmup = (2.5, 0.5) if MODE == "full" else (0.5, 0.1)
    seconds = float(os.environ.get("BENCH_SECONDS", seconds))
    about |= {"seconds": seconds, "wanted": wanted, "backends": backends}
    if MODE in ("journal", "copy"):
        docs = HERE.parent.parent / "docs"
        try:
            sys.exit(0 if (copybench.run(lab, about, ROUNDS, docs) if MODE == "copy"
                           else journal.run(lab, Backend("fake", lab), about, ROUNDS, docs)) else 1)
        except NotRun as why:
            sys.exit(f"bench: {why}")
        finally:
            lab.done()
    try:
        for name in backends:
            cells = ([(c, [w for w in who if w in wanted]) for b, c, who in QUICK if b == name] if quick
                     else [(c, wanted) for c in FULL + (FAKE_ONLY if name == "fake" else [])])
            if name == "cassandra":
                cells = [(dict(c, placement="free"), who) for c, who in cells]
            backend = Backend(name, lab)
            try:
                backend.start()
                backend.tables(sorted({c["bytes"] for c, _ in cells} | ({67108864} if name == "fake" else set())),
                               warm=3 if quick else 15)
                lab.say(f"{name}: both clusters are up")
                lab.rounds(backend, cells, seconds, warmup)
                if name == "fake":
                    lab.memory(backend, [w for w in wanted if w != "direct" and "fake" not in lab.absent.get(w, {})])
            except NotRun as why:
                lab.absent.setdefault("backend " + name, {})["all"] = str(why)
                lab.say(str(why))
            finally:
                backend.stop()
        about["took_s"] = round(time.monotonic() - lab.begun)
        lab.absent = {who: why for who, why in lab.absent.items() if why}
        about["absent"] = lab.absent
        complete = (not quick and ROUNDS >= 5 and set(backends) == {"fake", "cassandra"} and not lab.absent
                    and set(wanted) == set(contestants.ALL))
        (lab.out / "results.json").write_text(json.dumps(lab.results, indent=0) + "\n")
        (lab.out / "run.json").write_text(json.dumps(about, indent=1) + "\n")
        report.write(lab.out, HERE.parent.parent / "docs")
        if complete or os.environ.get("BENCH_WRITE") == "1":
            for name in ("benchmarks.md", "benchmarks.svg"):
                shutil.copy(lab.out / name, HERE.parent.parent / "docs" / name)
            lab.say("docs/benchmarks.md and docs/benchmarks.svg are new")
        lab.say(f"results: {lab.out}/results.json, page: {lab.out}/benchmarks.md")
    finally:
        lab.done()
    failed = [r for r in lab.results if r["errors"]]
    for r in failed[:5]:
        print(f"bench: {r['errors']} errors: {r['contestant']} {r['backend']} {report.case_name(r)}: {r['why']}",
              file=sys.stderr)
    sys.exit(1 if failed else 0)


main()
