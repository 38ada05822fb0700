# SPDX-License-Identifier: Apache-2.0
"""What a test holds in its hands: pods, clusters and agents of a run of tests/lab/lab.

Everything here lives inside `lab run`; so nothing needs to be taken away for the machine's sake, only so that the next
test finds its place clean. Processes are ended by the handle that started them.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LAB = os.path.join(ROOT, "tests", "lab", "lab")
CASSANDRA = os.path.join(ROOT, "tests", "lab", "cassandra.sh")
BUILD = os.environ.get("CQLFERRY_BUILD", os.path.join(ROOT, "build"))
BINARY = os.path.join(BUILD, "cqlferry")
RUN = os.environ.get("LAB_RUN", "/run/lab")
LOGS = os.path.join(BUILD, "log", os.environ.get("LAB_SUITE", "e2e"))
NODE_IP = os.environ.get("LAB_NODE_IP", "10.77.0.1")
USER = PASSWORD = "cassandra"


class LabError(Exception):
    pass


def wait_until(condition, seconds, what, step=0.05):
    """The condition's value once it is true; LabError after the deadline."""
    end = time.time() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.time() > end:
            raise LabError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(step)


def tail(path, lines=40):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except OSError as e:
        return str(e)


class Pod:
    """A network namespace with its own address, and a cgroup."""

    def __init__(self, name, address):
        self.name, self.address = name, address
        subprocess.run([LAB, "pod", name, address], check=True)

    def command(self, command):
        return [LAB, "in", self.name] + [str(c) for c in command]

    def start(self, command, **more):
        return subprocess.Popen(self.command(command), stdin=subprocess.DEVNULL, **more)

    def run(self, command, timeout=60, check=True, **more):
        r = subprocess.run(self.command(command), stdin=subprocess.DEVNULL, timeout=timeout, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        if check and r.returncode:
            raise LabError(f"{command} in {self.name}: exit {r.returncode}\n{r.stdout}\n{r.stderr}")
        return r

    def python(self, source, *args, timeout=60, check=True):
        """Runs Python source in the pod; it finds the modules of this directory."""
        env = dict(os.environ, PYTHONPATH=HERE, PYTHONWARNINGS="ignore")
        return self.run([sys.executable, "-c", source, *args], timeout=timeout, check=check, env=env)


class Cassandra:
    """Nodes of one cluster, each in a namespace of its own."""

    networks = {}  # namespaces stay until the run is over, with their addresses

    def __init__(self, name, network, count=1, version=None, options=("--auth",)):
        taken = self.networks.setdefault(network, name)
        assert taken == name, f"{taken} has the network 10.77.{network}.x already: {name} needs another one"
        self.name = name
        self.nodes = []
        self.version = version
        for i in range(1, count + 1):
            node, address = f"{name}{i}", f"10.77.{network}.{i}"
            subprocess.run([LAB, "pod", node, address], check=True)
            self.nodes.append((node, address))
        self.options = list(options) + (["--version", version] if version else [])

    @property
    def address(self):
        return self.nodes[0][1]

    @property
    def addresses(self):
        return [a for _, a in self.nodes]

    def start(self, first=True, rest=True):
        seed = self.nodes[0][1]
        for i, (node, address) in enumerate(self.nodes):
            if (i == 0 and not first) or (i > 0 and not rest):
                continue
            if i == 1 and first:
                self.wait(only=0)
            subprocess.run([CASSANDRA, "start", node, address, "--netns", node, "--seed", seed, *self.options], check=True)

    def wait(self, only=None):
        for i, (node, _) in enumerate(self.nodes):
            if only is None or i == only:
                subprocess.run([CASSANDRA, "wait", node, "240"], check=True)
        if only is None and len(self.nodes) > 1:
            self.meet()

    def meet(self, seconds=60):
        """Until every node takes every other one for up: one that listens may not have been heard by all yet. Roles are kept once (RF 1), so that
        a node reads all of them only while it knows a living replica of every range."""
        import compare
        from cassandra import DriverException
        from cassandra.cluster import NoHostAvailable

        def whole(address):
            side = None
            try:  # the login, too, needs a role's row
                side = compare.Side(self.name, address, USER, PASSWORD, alone=True)
                return list(side.session.execute("SELECT role FROM system_auth.roles"))
            except (DriverException, NoHostAvailable):
                return None
            finally:
                if side:
                    side.close()

        for address in self.addresses:
            wait_until(lambda a=address: whole(a), seconds, f"{address} takes all nodes of {self.name} for up", step=0.2)

    def stop(self, index=0, kill=False):
        subprocess.run([CASSANDRA, "stop", self.nodes[index][0]] + (["--kill"] if kill else []), check=True)

    def restart(self, index=0):
        subprocess.run([CASSANDRA, "start", self.nodes[index][0]], check=True)
        subprocess.run([CASSANDRA, "wait", self.nodes[index][0], "240"], check=True)

    def pause(self, index=0):
        subprocess.run([CASSANDRA, "pause", self.nodes[index][0]], check=True)

    def resume(self, index=0):
        subprocess.run([CASSANDRA, "resume", self.nodes[index][0]], check=True)

    def unplug(self, index=0):
        """Packets to and from the node vanish; no connection is refused or closed."""
        subprocess.run(["ip", "link", "set", "ve-" + self.nodes[index][0], "nomaster"], check=True)

    def plug(self, index=0):
        subprocess.run(["ip", "link", "set", "ve-" + self.nodes[index][0], "master", "cqf0"], check=True)

    def run(self, *statements):
        """Executes statements over a short straight connection; the rows of the last one as a list."""
        import compare

        side = compare.Side(self.name, self.address, USER, PASSWORD, metadata=False)
        try:
            rows = []
            for s in statements:
                rows = list(side.session.execute(s, timeout=60))
            if len(self.nodes) > 1 and any(s.split(None, 1)[0].upper() in ("CREATE", "ALTER", "DROP") for s in statements):
                self.agree()
            return rows
        finally:
            side.close()

    def agree(self, seconds=20):
        """Until all nodes that run have the same schema by their own word. (The driver does not wait for a node whose version it has not heard.)"""
        import compare

        def version(address):
            side = compare.Side(self.name, address, USER, PASSWORD, alone=True)
            try:
                return side.session.execute("SELECT schema_version FROM system.local").one()[0]
            finally:
                side.close()

        running = [a for node, a in self.nodes if subprocess.run([CASSANDRA, "running", node], check=False).returncode == 0]
        wait_until(lambda: len({version(a) for a in running}) == 1, seconds, f"the nodes of {self.name} agree on the schema", step=0.1)

    def save_logs(self):
        os.makedirs(LOGS, exist_ok=True)
        for node, _ in self.nodes:
            for name in ("system.log", "out.log"):
                try:
                    with open(os.path.join(RUN, node, name), "rb") as f, open(os.path.join(LOGS, f"{node}-{name}"), "wb") as t:
                        t.write(f.read()[-2_000_000:])
                except OSError:
                    pass


def yaml(value, indent=0):
    """Enough YAML for a configuration: maps, lists and scalars, one entry a line."""
    pad = "  " * indent
    out = ""
    for k, v in value.items():
        if isinstance(v, dict):
            out += f"{pad}{k}:\n{yaml(v, indent + 1)}"
        elif isinstance(v, (list, tuple)):
            out += f"{pad}{k}: [{', '.join(json.dumps(x) for x in v)}]\n"
        elif isinstance(v, bool):
            out += f"{pad}{k}: {str(v).lower()}\n"
        else:
            out += f"{pad}{k}: {json.dumps(v)}\n"
    return out


def merge(base, more):
    out = dict(base)
    for k, v in more.items():
        out[k] = merge(out[k], v) if isinstance(v, dict) and isinstance(out.get(k), dict) else v
    return out


class Agent:
    """One agent on the node. The same object may be started again: it keeps configuration, state and pins."""

    serial = 0

    def __init__(self, origin, target, ebpf=True, environment=None, only_environment=False, settings=None, **config):
        """settings: what of the configuration cannot be named by a keyword, being the clusters' names themselves."""
        Agent.serial += 1
        self.number = Agent.serial
        base = os.path.join(RUN, f"agent{self.number}")
        os.makedirs(base, exist_ok=True)
        os.makedirs(LOGS, exist_ok=True)
        self.state = os.path.join(base, "state")
        self.socket = os.path.join(base, "admin.sock")
        self.config_path = os.path.join(base, "cqlferry.yaml")
        self.log_path = os.path.join(LOGS, f"agent{self.number}.log")
        self.pins = f"/sys/fs/bpf/cqlferry-{self.number}"
        self.environment = environment or {}
        self.only_environment = only_environment
        self.process = None
        self.older = []  # that have handed over
        self.log_offset = 0
        open(self.log_path, "w").close()
        self.config = merge({
            "origin": {"contactPoints": origin.addresses, "username": USER, "password": PASSWORD},
            "target": {"contactPoints": target.addresses, "username": USER, "password": PASSWORD},
            "listen": {"agentAddress": NODE_IP, "agentAddress6": "fd77::1", "agentPort": 19042} if ebpf
            else {"port": 19043},
            "intercept": {"enabled": True, "cgroups": [os.environ["LAB_CGROUP"]], "pinPath": self.pins} if ebpf
            else {"enabled": False},
            "state": {"directory": self.state},
            "admin": {"socket": self.socket},
            "http": {"address": "127.0.0.1", "port": 9180},
            "log": {"level": os.environ.get("LAB_LOG_LEVEL", "info")},
        }, merge(config, settings or {}))
        os.makedirs(self.state, exist_ok=True)

    # ---- life

    def start(self, ready=True, seconds=20, more=()):
        command = [BINARY, "agent", *more]
        environment = dict(os.environ, **self.environment)
        if not self.only_environment:
            with open(self.config_path, "w", encoding="utf-8") as f:
                f.write(yaml(self.config))
            command += ["--config", self.config_path]
        log = open(self.log_path, "ab")
        self.log_offset = os.path.getsize(self.log_path)
        self.process = subprocess.Popen([LAB, "node", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        env=environment)
        log.close()
        if ready:
            self.wait_ready(seconds)
        return self

    def wait_ready(self, seconds=20):
        def ready():
            if self.process.poll() is not None:
                raise LabError(f"the agent ended with {self.process.returncode}:\n{self.log()}")
            return self.http("/readyz")[0] == 200

        wait_until(ready, seconds, lambda: f"agent ready; its log:\n{tail(self.log_path)}")

    def take_over(self, seconds=20):
        """A second process with the same configuration follows the one that runs: that one's Popen. Both log to the same file."""
        old = self.process
        self.start(ready=False, more=["--takeover"])

        def serving():
            if self.process.poll() is not None:
                raise LabError(f"the agent that was to take over ended with {self.process.returncode}:\n{self.log()}")
            return f"handed over to pid {self.process.pid}," in self.log() and self.http("/readyz")[0] == 200

        wait_until(serving, seconds, lambda: f"a takeover; the log:\n{tail(self.log_path)}")
        self.older.append(old)
        return old

    def stop(self, seconds=20):
        """SIGTERM; its exit status. An agent that does not end in time is a failure of the test."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise LabError(f"the agent did not end within {seconds} s of SIGTERM:\n{tail(self.log_path)}") from None

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def remove(self):
        """End of the test: no process, and interception taken away."""
        try:
            self.stop()
        finally:
            for old in self.older:
                if old.poll() is None:
                    old.kill()
                    old.wait()
            if os.path.isdir(self.pins):
                self.cli("off", "--force", "--remove", check=False)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    # ---- what it says

    def cli(self, *args, check=True, timeout=60):
        command = [BINARY, args[0], "--socket", self.socket, *args[1:]]
        if args[0] in ("off", "on"):
            command += ["--config", self.config_path]
        r = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=timeout)
        if check and r.returncode:
            raise LabError(f"cqlferry {' '.join(args)}: exit {r.returncode}: {r.stdout}{r.stderr}\n{tail(self.log_path, 15)}")
        return r

    def status(self):
        return json.loads(self.cli("status", "--json").stdout)

    def phase(self, name, *more, check=True):
        return self.cli("phase", name, *more, check=check)

    def http(self, path):
        """(status, text); status 0 when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.config['http']['port']}{path}", timeout=5) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError as e:
            return 0, str(e)

    def metrics(self):
        """{name or name{labels}: value}"""
        out = {}
        for line in self.http("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                out[name] = float(value)
        return out

    def metric(self, name):
        """The sum over all labels; 0 when there is none of that name."""
        return sum(v for k, v in self.metrics().items() if k == name or k.startswith(name + "{"))

    def counter(self, name):
        """One of the kernel side's counters, as bpftool shows it."""
        path = next(os.path.join(d, "counters") for d, _, names in os.walk(self.pins) if "counters" in names)
        dump = json.loads(subprocess.run(["bpftool", "-j", "map", "dump", "pinned", path], check=True, stdout=subprocess.PIPE).stdout)
        return sum(int(cpu["value"][name]) for cpu in dump[0]["formatted"]["values"])

    def gaps(self):
        """The gap ledger: a list of gaps as `cqlferry gaps --json` names them."""
        return json.loads(self.cli("gaps", "--json").stdout)["gaps"]

    def settled(self, seconds=60):
        """Until it says itself that nothing waits for the other cluster and nothing is in doubt."""
        def left():
            mirror = self.status()["mirror"]
            return f"{mirror['backlog']} records in the backlog, {mirror['inDoubt']} in doubt"

        nothing = "0 records in the backlog, 0 in doubt"
        wait_until(lambda: left() == nothing, seconds, left, step=0.2)

    def log(self):
        """What it logged since it was last started."""
        with open(self.log_path, "rb") as f:
            f.seek(self.log_offset)
            return f.read().decode(errors="replace")

    def memory_kib(self):
        """{"RssAnon": …, "RssFile": …, "RssShmem": …}"""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            return {line.split(":")[0]: int(line.split()[1]) for line in f if line.startswith("Rss")}


class Load:
    """A running writer.py or cqlsh_writer.py in a pod."""

    live = []  # all that were started and not stopped: a test that fails must not leave them to the next

    def __init__(self, pod, contact, keyspace, prefix="p", program="writer.py", **options):
        self.options = options
        self.record = os.path.join(RUN, f"record-{keyspace}-{prefix}")
        command = [sys.executable, os.path.join(HERE, program), "--contact", contact, "--keyspace", keyspace,
                   "--prefix", prefix, "--record", self.record, "--user", USER, "--password", PASSWORD]
        for k, v in options.items():
            command += ["--" + k.replace("_", "-")] + ([] if v is True else [str(v)])
        self.output_path = self.record + ".out"
        with open(self.output_path, "wb") as out:
            env = dict(os.environ, PYTHONWARNINGS="ignore")
            self.process = pod.start(command, stdout=out, stderr=out, env=env)
        Load.live.append(self)

    def stat(self):
        try:
            with open(self.record + ".stat", encoding="utf-8") as f:
                return json.load(f)
        except (OSError, ValueError):
            return {"acknowledged": 0, "errors": 0, "longest_ms": 0, "causes": {}, "running": False, "ready": False}

    def wait_running(self, acknowledged=50, seconds=60):
        """Until it has got that many more answers than now."""
        goal = self.stat()["acknowledged"] + acknowledged

        def there():
            if self.process.poll() is not None:
                raise LabError(f"the writer ended:\n{tail(self.output_path)}")
            return self.stat()["acknowledged"] >= goal

        wait_until(there, seconds, lambda: f"{acknowledged} more acknowledged writes; {self.stat()}\n{tail(self.output_path)}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self in Load.live:
            Load.live.remove(self)

    @classmethod
    def kill_all(cls):
        """A test that failed has not stopped its writers; they must be gone before their keyspace or agent is."""
        for load in list(cls.live):
            load.kill()

    def stop(self, seconds=40):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if self in Load.live:
            Load.live.remove(self)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"the writer did not stop:\n{tail(self.output_path)}") from None
        stat = self.stat()
        if self.process.returncode != 0:
            raise LabError(f"the writer failed with {self.process.returncode}:\n{tail(self.output_path)}")
        return stat


def free_port(address="127.0.0.1"):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]
