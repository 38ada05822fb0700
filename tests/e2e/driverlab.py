# SPDX-License-Identifier: Apache-2.0
"""The programs of tests/drivers in pods, what is asked of them, and the table that their answers make."""
import json
import os
import select
import subprocess
import time

import lab

DRIVERS = os.path.join(lab.ROOT, "tests", "drivers")
DOCUMENT = os.path.join(lab.ROOT, "docs", "compatibility.md")

PLACE = "CREATE TYPE {ks}.place (street text, number int)"
TABLES = (
    "early (id text PRIMARY KEY, v text, n int)",
    "rows (id text PRIMARY KEY, v text, n int, at timestamp, u timeuuid)",
    "pages (p text, i int, v text, PRIMARY KEY (p, i))",
    "lwt (id text PRIMARY KEY, v text, n int)",
    "counts (id text PRIMARY KEY, c counter)",
    "big (id text PRIMARY KEY, b blob)",
    "kinds (id text PRIMARY KEY, a ascii, bi bigint, bl blob, bo boolean, da date, de decimal, dbl double, du duration, fl float, ine inet, "
    "i int, si smallint, te text, ti time, ts timestamp, tu timeuuid, ty tinyint, uu uuid, vi varint, li list<int>, se set<text>, "
    "ma map<text, int>, fr frozen<list<frozen<list<int>>>>, tup tuple<int, text, double>, ud frozen<place>, "
    "nest map<text, frozen<set<frozen<place>>>>, ve vector<float, 3>)",
)


def schema(keyspace):
    """What the programs find in the second keyspace."""
    return [f"USE {keyspace}", PLACE.format(ks=keyspace), *[f"CREATE TABLE {keyspace}.{t}" for t in TABLES]]


def words(driver):
    """What starts its program; None: it was not built."""
    r = subprocess.run([os.path.join(DRIVERS, "build.sh"), "command", driver], text=True, stdout=subprocess.PIPE)
    return r.stdout.split("\n")[:-1] if r.returncode == 0 else None


class Program:
    """One program of tests/drivers: commands go in by lines, each is answered by a line."""

    def __init__(self, driver, protocol, compression, pod, contact, keyspace):
        self.driver, self.protocol, self.compression, self.pod = driver, protocol, compression, pod
        self.prefix = f"v{protocol}{compression}"
        self.record = os.path.join(lab.RUN, f"record-{keyspace}-{self.prefix}")
        self.said = os.path.join(lab.LOGS, f"{driver}-{self.prefix}.err")
        command = words(driver) + ["--contact", contact, "--user", lab.USER, "--password", lab.PASSWORD, "--keyspace", keyspace, "--record", self.record,
                    "--prefix", self.prefix, "--protocol", str(protocol), "--compression", compression]
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(pod.command(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        self.buffer = b""

    @property
    def name(self):
        return f"{self.driver} {self.prefix}"

    def tell(self, line):
        self.process.stdin.write((line + "\n").encode())
        self.process.stdin.flush()

    def answer(self, seconds=120):
        """The next line; LabError with what the program said when there is none."""
        end = time.time() + seconds
        while b"\n" not in self.buffer:
            left = end - time.time()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise lab.LabError(f"{self.name} does not answer within {seconds} s:\n{lab.tail(self.said)}")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise lab.LabError(f"{self.name} ended with {self.process.wait(10)}:\n{lab.tail(self.said)}")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        if self.process.wait(60) != 0:
            raise lab.LabError(f"{self.name} ended with {self.process.returncode}:\n{lab.tail(self.said)}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def ask(programs, line):
    """All of them at once; the answers in their order."""
    for p in programs:
        p.tell(line)
    return [p.answer() for p in programs]


def clients(address):
    """Who is connected to that node, as it says itself: (address, driver, version, protocol, compression)."""
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.policies import WhiteListRoundRobinPolicy

    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([address]), request_timeout=30)
    cluster = Cluster([address], auth_provider=PlainTextAuthProvider(lab.USER, lab.PASSWORD), protocol_version=5,
                      execution_profiles={EXEC_PROFILE_DEFAULT: profile}, schema_metadata_enabled=False, connect_timeout=20,
                      control_connection_timeout=20)
    try:
        rows = cluster.connect().execute("SELECT address, driver_name, driver_version, protocol_version, client_options "
                                         "FROM system_views.clients")
        return [(str(r[0]), r[1] or "", r[2] or "", r[3], dict(r[4] or {}).get("COMPRESSION", "none")) for r in rows]
    finally:
        cluster.shutdown()


def cut(pods):
    """Closes every connection of the pods to a cluster or agent, from outside, as a firewall that forgets them would."""

    def ss(pod, *options):
        r = subprocess.run(["nsenter", f"--net=/run/netns/{pod.name}", "--", "ss", "-Htn", *options, "state", "established",
                            "( dport = :9042 or dport = :19042 )"], check=True, stdout=subprocess.PIPE, text=True)
        return {line.split()[2] for line in r.stdout.splitlines()}

    before = {(pod.name, port) for pod in pods for port in ss(pod)}
    for pod in pods:
        ss(pod, "-K")
    left = {(pod.name, port) for pod in pods for port in ss(pod)} & before
    if not before or left:
        raise lab.LabError(f"of {len(before)} connections {len(left)} could not be cut")


ROUNDS = ("observe", "mirror", "mirror, cut", "cutover", "cutover, cut", "finish", "finish, cut")
GOOD = "✓"


class Row:
    """What one program saw: a line of the table."""

    def __init__(self, program):
        self.program = program
        self.driver = self.version = ""
        self.cells, self.remarks, self.failed = {}, [], []

    def add(self, name, features):
        bad = [f for f, said in features.items() if not said.startswith("ok")]
        for feature, said in features.items():
            remark = said.partition("ok: ")[2]
            if remark and remark not in self.remarks:
                self.remarks.append(remark)
            if feature in bad:
                self.failed.append(f"{self.program.name}, {name}, {feature}: {said}")
        self.cells[name] = "✗ " + ", ".join(bad) if bad else GOOD

    def line(self):
        p = self.program
        return [LANGUAGES[p.driver], self.driver, self.version, f"v{p.protocol}", p.compression, *[self.cells.get(r, "") for r in ROUNDS],
                "; ".join(self.remarks)]


LANGUAGES = {"python": "Python", "java": "Java", "node": "Node.js", "gocql1": "Go, gocql 1", "gocql2": "Go, gocql 2", "rust": "Rust",
             "cpp": "C++ (acsylla)"}
HEAD = ["", "Driver", "Version", "Protocol", "Compression", *ROUNDS, "Not in this driver"]
TEXT = """# Drivers

Made by `make drivers` (`tests/e2e/test_drivers.py`), not by hand. Each line is an unmodified program that was under way through all
phases, in a pod whose connections were intercepted, with an origin of two nodes.

{table}
✓: everything below worked, and no error reached the application. *Cut*: after all its connections had been cut from outside.

In each column the program tries, and checks the answers of: simple statements with and without values; prepared statements, some from before the
switch, some new, with values that are not set; batches (logged, unlogged, of counters, of prepared and simple statements); paging, and pages of a
sequence that began in the column before; conditional writes that apply and that do not; counters; every CQL type, with nested collections, user types,
tuples, vectors and durations; `now()`; TTL and timestamps; values of 300 kB; 200 requests at once; CREATE and DROP TABLE until the driver's own schema
shows it; connections to every node. Between the columns it goes on writing: no error but for connections that were closed on purpose, which is at the
cuts and from observe to mirror (connections older than the mirror are closed).
Afterwards both clusters held the same rows with the same WRITETIME and TTL, and nothing that was acknowledged was missing.
Driver and version are what the driver told the cluster (the Rust driver tells the version of its protocol crate). What a driver does not have it does
not have without cqlferry either: older protocol versions have no numbers for newer types, and not every driver knows their classes.

Out of reach: with the second of two nodes cut off from program and agent alike (packets dropped; for Java and Python also rejected, and without a route)
each of these drivers has connections to both nodes, and everything above works ([connection-modes.md](connection-modes.md)); Java and Python also move 100,000
rows in and out again, complete. Without cqlferry they have no connection to that node.

Known besides: a driver that loses its connections has to find its nodes again, as with any cluster; until then the application gets the driver's
errors. gocql 2.1.2 panics in its token-aware policy while every node is down. The Node.js driver leaves timers behind that keep an ended process.
Each time it loses all of its connections at once it has one more control connection that finds the nodes anew; on a slow machine its list may end
with a node that counts as up and is never connected, and statements cannot be prepared there. Its program here then makes a new client.
"""


def cells(line):
    return [c.strip() for c in line.strip().strip("|").split("|")]


def committed():
    """{(program, protocol, compression): line} of the table as it is."""
    try:
        with open(DOCUMENT, encoding="utf-8") as f:
            lines = [cells(x) for x in f if x.startswith("| ")]
    except FileNotFoundError:
        return {}
    return {(x[0], x[3], x[4]): x for x in lines if len(x) == len(HEAD) and x[0] in LANGUAGES.values()}


def write(rows):
    """Puts these rows into the document, but for those of which a cell is neither good nor what it was: these in words. LAB_ACCEPT=1 puts
    them there as well, for a person who has found out why and says so beside the table."""
    table, worse = committed(), []
    for row in rows:
        line = row.line()
        before = table.get((line[0], line[3], line[4]))
        found = []
        for i, name in enumerate(HEAD):
            if name in ROUNDS and line[i] != GOOD and (before is None or before[i] != line[i]):
                found.append(f"{row.program.name}, {name}: {line[i]}, was {before[i] if before else 'not there'}")
                found += [x for x in row.failed if x.startswith(f"{row.program.name}, {name}, ")]
        if not found or os.environ.get("LAB_ACCEPT"):
            table[(line[0], line[3], line[4])] = line
        worse += found
    order = list(LANGUAGES.values())
    lines = sorted(table.values(), key=lambda x: (order.index(x[0]), x[3], x[4]))
    text = "".join("| " + " | ".join(x) + " |\n" for x in [HEAD, ["---"] * len(HEAD), *lines])
    with open(DOCUMENT + ".new", "w", encoding="utf-8") as f:
        f.write(TEXT.format(table=text))
    os.replace(DOCUMENT + ".new", DOCUMENT)
    return worse
