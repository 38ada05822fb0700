# SPDX-License-Identifier: Apache-2.0
"""BENCH=copy: `cqlferry copy` against cqlsh's COPY, its connection modes against each other, and what the client alone can do.

  one node     cqlsh and cqlferry, the latter straight to the node, in proxy mode, and in proxy mode behind HAProxy, which passes
               bytes on; NUMPROCESSES through that one address
  two nodes    each row on one of them: straight to both; all by one of them; behind HAProxy, which hides both; auto when the
               second refuses or drops the client's connections
  fake server  costs next to nothing: the client alone

Every cell is measured once in each round, the order turned by one. COPY FROM begins with an empty table; COPY TO reads one that is
always the same, from files. Before each measurement the servers have come to rest. copy_report.py makes the page.
"""
import datetime
import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import time

import copy_report
from contestants import NotRun, Process

COLUMNS = "id int PRIMARY KEY, a text, b bigint, c double, d boolean, e timestamp, f text, g int, h uuid, i blob"
NAMES = "id,a,b,c,d,e,f,g,h,i"
ROWS = int(os.environ.get("BENCH_ROWS", "300000"))
FAKE_OUT, FAKE_FILES = 20 * ROWS, 10
ONE, TWO, BALANCER, FAKE = ["127.0.7.1"], ["127.0.7.11", "127.0.7.12"], "127.0.7.20", "127.0.7.30"
TIMEOUT = 1  # seconds; auto's for a node that drops packets


def cell(cluster, direction, way, processes=0):
    return {"cluster": cluster, "direction": direction, "way": way, "processes": processes}


BOTH = ("from", "to")
ONE_CELLS = [cell("one", d, w) for d in BOTH for w in ("cqlsh", "direct", "proxy", "haproxy")] + [
    cell("one", d, "haproxy", n) for d in BOTH for n in (1, 2, 4, 8)]
TWO_CELLS = [cell("two", d, w) for d in BOTH for w in ("direct", "proxy", "haproxy", "refused", "dropped")]
FAKE_CELLS = [cell("fake", d, "direct") for d in BOTH]


def make_file(path):
    random.seed(1)
    with open(path, "w", newline="", encoding="utf-8") as f:
        for i in range(ROWS):
            f.write(f"{i},name-{i},{random.randint(0, 10**9)},{random.random() * 1000:.6f},{'True' if i % 2 else 'False'},"
                    f"2024-01-{i % 28 + 1:02d} 10:20:30.{i % 1000:03d}+0000,text of row {i} with some words,{random.randint(0, 2**31 - 1)},"
                    f"123e4567-e89b-12d3-a456-{i:012x},0x{i:08x}\r\n")


def cpu_seconds(pid):
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9  # the process's CPU clock, see contestants.py


def peak_kib(pid):
    """Of the program itself; ru_maxrss would count what this one had when it forked."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            return next((int(x.split()[1]) for x in f if x.startswith("VmHWM")), 0)
    except OSError:
        return 0


class Cluster:
    """Nodes of Cassandra on loopback addresses; nothing of them is left when it is stopped."""

    def __init__(self, lab, name, addresses):
        self.lab, self.name, self.addresses, self.pids = lab, name, addresses, []
        self.env = dict(os.environ, LAB_RUN=str(lab.directory / "cassandra"), LAB_JIT="full", LAB_HEAP="2g" if len(addresses) == 1 else "1200m")

    def nodes(self):
        return [(f"copy{self.name}{i}", a) for i, a in enumerate(self.addresses, 1)]

    def script(self, *argv, check=True):
        done = subprocess.run([os.environ["BENCH_LAB"], *argv], env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and done.returncode:
            raise NotRun(f"Cassandra: {argv[0]}: {done.stdout.strip()[-300:]}")

    def start(self):
        for node, address in self.nodes():
            self.script("start", node, address, "--seed", self.addresses[0])
            self.script("wait", node, "240")
            self.pids.append(int((self.lab.directory / "cassandra" / node / "pid").read_text()))

    def flush(self):
        for node, _ in self.nodes():
            self.script("nodetool", node, "flush")

    def cpu(self):
        return sum(cpu_seconds(p) for p in self.pids)

    def rest(self):
        """Until flushing and compaction are over: less than a tenth of a core for half a second, or 20 s have passed."""
        for _ in range(40):
            before = self.cpu()
            time.sleep(0.5)
            if self.cpu() - before < 0.05:
                return

    def stop(self):
        for node, _ in self.nodes():
            self.script("stop", node, "--kill", check=False)
        self.pids = []


class Copy:
    def __init__(self, lab):
        self.lab, self.results, self.absent = lab, [], {}
        cache = subprocess.run([str(pathlib.Path(os.environ["BENCH_LAB"]).parent / "deps.sh"), "path"], stdout=subprocess.PIPE, text=True,
                               check=True).stdout.strip()
        self.cqlsh, self.ferry = os.path.join(cache, "venv", "bin", "cqlsh"), str(lab.build / "cqlferry")
        self.directory = lab.directory / "copy"
        self.directory.mkdir()
        self.source, self.out = str(self.directory / "in.csv"), str(self.directory / "out.csv")
        self.env = dict(os.environ, HOME=str(self.directory), PYTHONWARNINGS="ignore")
        self.balancer = None
        make_file(self.source)

    # ------------------------------------------------------------------ one measurement

    def ask(self, cluster, statement):
        done = subprocess.run([self.cqlsh, cluster.addresses[0], "--request-timeout", "60", "-e", statement], env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise NotRun(f"cqlsh: {done.stdout.strip()[-300:]}")

    def command(self, c, addresses, table):
        name = f"{table}({NAMES})"
        file = self.out if c["direction"] == "to" else self.source
        if c["way"] == "cqlsh":
            return [self.cqlsh, addresses[0], "--request-timeout", "60", "-e", f"COPY {name} {c['direction'].upper()} '{file}'"]
        if c["cluster"] == "fake":
            file = "/dev/null" if c["direction"] == "to" else ",".join([file] * FAKE_FILES)
        argv = [self.ferry, "copy", c["direction"], name, file, "--host", BALANCER if c["way"] == "haproxy" else addresses[0]]
        argv += {"direct": ["--connectionmode", "direct"], "proxy": ["--proxy-mode"], "haproxy": ["--proxy-mode"],
                 "refused": [], "dropped": ["--connect-timeout", str(TIMEOUT)]}[c["way"]]
        return argv + (["--numprocesses", str(c["processes"])] if c["processes"] else [])

    def run(self, argv, words):
        """(seconds, client CPU s, client's peak memory in MiB)"""
        log = self.directory / "log"
        began, cpu, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), 0
        with open(log, "wb") as out:
            p = subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.directory)
            while p.poll() is None:
                peak = max(peak, peak_kib(p.pid))
                time.sleep(0.02)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        text = log.read_text(errors="replace")
        if p.returncode or words not in text:
            raise NotRun(f"{os.path.basename(argv[0])} ended with {p.returncode}: {text.strip()[-300:]}")
        return seconds, after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime, peak / 1024

    def measure(self, c, cluster, number):
        rows, table = ROWS, "b.rows" if c["direction"] == "to" else "b.target"
        if c["cluster"] == "fake":
            rows, table, addresses = FAKE_OUT if c["direction"] == "to" else FAKE_FILES * ROWS, "bench.rows", [FAKE]
        else:
            addresses = cluster.addresses
            if c["direction"] == "from":
                self.ask(cluster, "TRUNCATE b.target")
            cluster.rest()
        before = cluster.cpu() if cluster else 0.0
        proxy = cpu_seconds(self.balancer.pid) if self.balancer else 0.0
        with Wall(addresses, c["way"]):
            # The fake table has about as many rows as it was told.
            words = "rows exported" if c["cluster"] == "fake" and c["direction"] == "to" else f"{rows} rows {'im' if c['direction'] == 'from' else 'ex'}ported"
            seconds, client, peak = self.run(self.command(c, addresses, table), words)
        server = cluster.cpu() - before if cluster else None
        self.results.append(dict(c, round=number, rows=rows, seconds=seconds, rate=rows / seconds, client_cpu=client,
                                 client_mib=None if c["way"] == "cqlsh" else peak, server_cpu=server,
                                 server_share=None if server is None else server / seconds / os.cpu_count(),
                                 proxy_cpu=cpu_seconds(self.balancer.pid) - proxy if c["way"] == "haproxy" else None))

    def rounds(self, cells, cluster, count):
        for number in range(count):
            turned = cells[number % len(cells):] + cells[:number % len(cells)]
            for c in turned:
                try:
                    self.measure(c, cluster, number)
                    r = self.results[-1]
                    self.lab.say(f"{copy_report.cell_name(c)}: {r['rate']:,.0f} rows/s, {r['client_cpu']:.2f} s of CPU"
                                 + (f", servers {r['server_cpu']:.1f} s, {100 * r['server_share']:.0f} %" if cluster else ""))
                except NotRun as why:
                    self.absent[copy_report.cell_name(c)] = str(why)
                    self.lab.say(f"{copy_report.cell_name(c)}: {why}")

    # ------------------------------------------------------------------ servers

    def balance(self, addresses):
        path = self.directory / "haproxy.cfg"
        path.write_text("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
                        f"listen cql\n  bind {BALANCER}:9042\n" + "".join(f"  server n{i} {a}:9042\n" for i, a in enumerate(addresses)))
        self.balancer = Process(["/usr/sbin/haproxy", "-db", "-f", path], self.directory / "haproxy.log")
        time.sleep(0.5)
        if not self.balancer.alive():
            raise NotRun(f"HAProxy: {self.balancer.last_words()}")

    def real(self, name, addresses, cells, count):
        cluster = Cluster(self.lab, name, addresses)
        try:
            cluster.start()
            self.balance(addresses)
            self.ask(cluster, "CREATE KEYSPACE b WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1};"
                     f"CREATE TABLE b.rows ({COLUMNS}); CREATE TABLE b.target ({COLUMNS});")
            # The servers' compilers have to have seen the work before it is measured.
            for c in (cell(name, "from", "direct"), cell(name, "from", "proxy")):
                self.run(self.command(c, addresses, "b.rows") + ["--maxattempts", "50"], "rows imported")
            cluster.flush()
            for c in [cell(name, "to", "direct"), cell(name, "to", "proxy")] * 3:
                self.run(self.command(c, addresses, "b.rows"), f"{ROWS} rows exported")
            self.lab.say(f"{len(addresses)} node{'s' * (len(addresses) > 1)} warm")
            self.rounds(cells, cluster, count)
        except NotRun as why:
            self.absent[f"cluster {name}"] = str(why)
            self.lab.say(str(why))
        finally:
            if self.balancer:
                self.balancer.stop()
                self.balancer = None
            cluster.stop()

    def fake(self, count):
        server = Process([self.lab.tool("fakecql"), "--listen", f"{FAKE}:9042", "--rows", FAKE_OUT], self.directory / "fake.log")
        try:
            time.sleep(0.5)
            self.rounds(FAKE_CELLS, None, count)
        finally:
            server.stop()


class Wall:
    """The second node's port as a firewall shuts it; the nodes go on talking with each other."""

    def __init__(self, addresses, way):
        self.rule = {"refused": "reject with tcp reset", "dropped": "drop"}.get(way)
        self.address = addresses[-1]

    def nft(self, text):
        done = subprocess.run(["/usr/sbin/nft", "-f", "-"], input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise NotRun(f"nft: {done.stdout.strip()[-300:]}")

    def __enter__(self):
        if self.rule:
            self.nft("table ip cqlferry_bench {\n chain out {\n  type filter hook output priority 0;\n"
                     f"  ip daddr {self.address} tcp dport 9042 {self.rule}\n }}\n}}\n")

    def __exit__(self, *_):
        if self.rule:
            self.nft("delete table ip cqlferry_bench\n")


def run(lab, about, rounds, docs):
    """All of it; True when nothing failed."""
    copy = Copy(lab)
    copy.real("one", ONE, ONE_CELLS, rounds)
    copy.real("two", TWO, TWO_CELLS, rounds)
    copy.fake(rounds)
    about |= {"took_s": round(time.monotonic() - lab.begun), "absent": copy.absent, "rows": ROWS, "bytes": os.path.getsize(copy.source),
              "timeout": TIMEOUT, "files": FAKE_FILES, "date": datetime.date.today().isoformat()}
    (lab.out / "copy.json").write_text(json.dumps({"run": about, "rows": copy.results}, indent=0) + "\n")
    copy_report.write(lab.out)
    if (not copy.absent and ROWS >= 300000 and rounds >= 3) or os.environ.get("BENCH_WRITE") == "1":
        shutil.copy(lab.out / "benchmarks-copy.md", docs)
        copy_report.write_part(lab.out, docs)
        lab.say("docs/benchmarks-copy.md is new, and its table in docs/benchmarks.md")
    lab.say(f"results: {lab.out}/copy.json, page: {lab.out}/benchmarks-copy.md")
    return not copy.absent
