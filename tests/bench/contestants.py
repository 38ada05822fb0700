# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the benchmark, and how each is started.

A contestant stands between the client (cqlload) and the origin. `start()` brings it up for one backend and says
where the client connects to; `stop()` ends exactly the process that was started. One function each for the command
line or configuration file, so that a change of the agent's interface touches one place:

  direct             nothing in between
  haproxy            HAProxy, mode tcp: what a relay costs that looks at nothing
  cqlferry-explicit  the agent on a port of its own, phase observe: relay, no mirror, no eBPF
  cqlferry-mirror    the agent by the proxy document's variables alone: every write goes to both clusters
  cqlferry           intercepted by eBPF, no sk_msg, phase mirror
  cqlferry-skmsg     the same with socket-to-socket redirect
  zdm                zdm-proxy, where ZDM_PROXY names its binary

An intercepted contestant's client runs in a cgroup of its own below `cqlferry-bench-<pid>` and connects to the
origin's address; the others' clients run outside of it and connect to the contestant's address.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

ALL = ["direct", "haproxy", "cqlferry-explicit", "cqlferry-mirror", "cqlferry", "cqlferry-skmsg", "zdm"]
INTERCEPTED = ("cqlferry", "cqlferry-skmsg")
MIRRORING = ("cqlferry-mirror", "cqlferry", "cqlferry-skmsg", "zdm")


class NotRun(Exception):
    """This contestant cannot take part; the text says why and goes into the report."""


def cgroup2_mount():
    for line in open("/proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            return pathlib.Path(fields.split()[4])
    return None


class Process:
    """A child of ours: started in its own session, stopped by its pid, its CPU time and memory readable."""

    def __init__(self, argv, log, env=None, cgroup=None, stdin=subprocess.DEVNULL, cwd=None):
        def enter():
            os.setsid()
            if cgroup:
                (cgroup / "cgroup.procs").write_text("0")

        self.name, self.log = os.path.basename(str(argv[0])), log
        self.child = subprocess.Popen([str(a) for a in argv], env=env, stdin=stdin, cwd=cwd, preexec_fn=enter,
                                      stdout=open(log, "ab"), stderr=subprocess.STDOUT)
        self.pid = self.child.pid

    def alive(self):
        return self.child.poll() is None

    def cpu_seconds(self):
        # The process's CPU clock: the same as utime+stime of /proc/PID/stat over all threads, ended ones too, but in
        # nanoseconds instead of 10 ms ticks. See clock_getcpuclockid(3) for how the number is made.
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def memory_kib(self, key="VmRSS"):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+)", text, re.M).group(1))

    def peak_reset(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def pin(self, cpus):
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                os.sched_setaffinity(int(task), cpus)
            except ProcessLookupError:
                pass  # a thread that has just ended

    def last_words(self):
        lines = pathlib.Path(self.log).read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-400:] or "it wrote nothing"

    def stop(self, seconds=10):
        if self.alive():
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Contestant:
    def __init__(self, name, lab):
        self.name, self.lab, self.process, self.cgroup, self.agent_cgroup = name, lab, None, None, None
        self.number = ALL.index(name)
        self.address, self.port = f"127.0.30.{100 + self.number}", 9042

    def start(self, backend):
        """Brings it up before `backend` and waits until one request has gone through. NotRun if it cannot."""
        self.backend = backend
        self.log = self.lab.directory / f"{self.name}-{backend.name}.log"
        self.host = f"{backend.origin}:9042"
        if self.name == "direct":
            return
        starter = getattr(self, "start_" + self.name.replace("-", "_"))
        starter()
        if self.name not in INTERCEPTED:
            self.host = f"{self.address}:{self.port}"
        deadline = time.monotonic() + 20
        while True:
            if not self.process.alive():
                raise NotRun(f"ended at once: {self.process.last_words()}")
            before = self.process.cpu_seconds()
            works = self.lab.works(self)
            missing = works and self.went_past(self.process.cpu_seconds() - before)
            if works and not missing:
                return
            if time.monotonic() > deadline:
                raise NotRun(f"{missing or 'no request went through'} within 20 s: {self.process.last_words()}")
            time.sleep(0.1)

    def went_past(self, cpu_seconds):
        """Why 200 requests that were answered did not take the way that this contestant stands for; None if they did."""
        if cpu_seconds < 200 * 0.5e-6:
            return "it used no CPU time for requests that were answered"
        if self.name in INTERCEPTED and not self.kernel_counter("redirected"):
            return "no connect was redirected"
        if self.name == "cqlferry-skmsg" and not self.kernel_counter("accelerated"):
            return "no connection was taken into sk_msg"
        return None

    def kernel_counter(self, name):
        """One of the counters of bpf/, summed over its keys and CPUs, as bpftool shows them."""
        total, bpftool = 0, shutil.which("bpftool") or "/usr/sbin/bpftool"
        for path in pathlib.Path(f"/sys/fs/bpf/{self.name}-{self.backend.name}").glob("*/counters"):
            done = subprocess.run([bpftool, "-j", "map", "dump", "pinned", path], capture_output=True, text=True)
            for entry in json.loads(done.stdout or "[]"):
                total += sum(cpu["value"].get(name, 0) for cpu in entry.get("formatted", {}).get("values", []))
        return total

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None
        for path in filter(None, (self.cgroup, self.agent_cgroup)):
            for _ in range(50):  # a member that has just ended leaves a moment later
                try:
                    path.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)
        self.cgroup = self.agent_cgroup = None

    # ------------------------------------------------------------- one function for each way to start one
    def start_haproxy(self):
        binary = shutil.which("haproxy") or "/usr/sbin/haproxy"
        if not os.path.exists(binary):
            raise NotRun("haproxy is not installed")
        config = self.lab.directory / f"haproxy-{self.backend.name}.cfg"
        config.write_text(
            "global\n  maxconn 6000\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"listen cql\n  bind {self.address}:{self.port}\n  server origin {self.backend.origin}:9042\n")
        self.process = Process([binary, "-db", "-f", config], self.log)

    def start_zdm(self):
        binary = os.environ.get("ZDM_PROXY")
        if not binary:
            raise NotRun("ZDM_PROXY does not name its binary")
        env = dict(os.environ, ZDM_PROXY_LISTEN_ADDRESS=self.address, ZDM_PROXY_LISTEN_PORT=str(self.port),
                   ZDM_PROXY_TOPOLOGY_ADDRESSES=self.address, ZDM_PROXY_TOPOLOGY_INDEX="0",
                   ZDM_METRICS_ADDRESS=self.address, ZDM_METRICS_PORT="14001", ZDM_LOG_LEVEL="WARN",
                   ZDM_PROXY_MAX_CLIENT_CONNECTIONS="6000")
        for side, host in (("ORIGIN", self.backend.origin), ("TARGET", self.backend.target)):
            env |= {f"ZDM_{side}_CONTACT_POINTS": host, f"ZDM_{side}_PORT": "9042",
                    f"ZDM_{side}_USERNAME": "bench", f"ZDM_{side}_PASSWORD": "bench"}
        self.process = Process([binary], self.log, env)

    def agent(self, yaml=None, env=None):
        """The agent in the foreground; what it would keep in the usual places goes to the run's directory."""
        binary = self.lab.build / "cqlferry"
        if not binary.exists():
            raise NotRun("the agent is not built")
        state = self.lab.directory / f"{self.name}-{self.backend.name}"
        state.mkdir(exist_ok=True)
        argv = [binary, "agent"]
        if yaml:
            file = self.lab.directory / f"{self.name}-{self.backend.name}.yaml"
            file.write_text(yaml + f"state: {{directory: {state}}}\nadmin: {{socket: {state}/admin.sock}}\n"
                            "http: {port: 0}\nlog: {level: info}\n")
            argv += ["--config", file]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CQLFERRY_", "SOURCE_", "ASTRA_"))}
        self.process = Process(argv, self.log, clean | (env or {}), self.agent_cgroup)

    def clusters(self):
        side = "{0}: {{contactPoints: ['{1}'], username: bench, password: bench}}\n"
        return side.format("origin", self.backend.origin) + side.format("target", self.backend.target)

    def start_cqlferry_explicit(self):
        self.agent(self.clusters() + f"listen: {{address: {self.address}, port: {self.port}}}\n"
                   "intercept: {enabled: false}\nphase: {initial: observe}\n")

    def start_cqlferry_mirror(self):
        state = self.lab.directory / f"{self.name}-{self.backend.name}"
        self.agent(env={
            "SOURCE_HOSTNAME": self.backend.origin, "SOURCE_PORT": "9042",
            "SOURCE_USERNAME": "bench", "SOURCE_PASSWORD": "bench",
            "ASTRA_HOSTNAME": self.backend.target, "ASTRA_PORT": "9042",
            "ASTRA_USERNAME": "bench", "ASTRA_PASSWORD": "bench", "PROXY_QUERY_PORT": str(self.port),
            # Not the document's: only so that several agents fit on one machine.
            "CQLFERRY_LISTEN_ADDRESS": self.address, "CQLFERRY_STATE_DIRECTORY": str(state),
            "CQLFERRY_ADMIN_SOCKET": f"{state}/admin.sock", "CQLFERRY_HTTP_PORT": "9180",
            "CQLFERRY_HTTP_ADDRESS": self.address, "CQLFERRY_LOG_LEVEL": "warn"})

    def start_cqlferry(self, acceleration="off"):
        if not self.lab.cgroup:
            raise NotRun("no cgroup2 mount, or no right to make a cgroup in it")
        # The agent has a cgroup of its own as well, as in a pod: in the root cgroup it does without acceleration.
        self.cgroup = self.lab.cgroup / f"{self.name}-{self.backend.name}"
        self.agent_cgroup = self.lab.cgroup / f"{self.name}-{self.backend.name}-agent"
        self.cgroup.mkdir(exist_ok=True)
        self.agent_cgroup.mkdir(exist_ok=True)
        self.port = 19042
        self.agent(self.clusters() + f"listen: {{agentAddress: {self.address}, agentPort: {self.port}}}\n"
                   f"intercept:\n  enabled: true\n  cgroups: ['{self.cgroup}']\n"
                   f"  watch: ['{self.backend.origin}:9042']\n  acceleration: '{acceleration}'\n"
                   f"  pinPath: /sys/fs/bpf/{self.name}-{self.backend.name}\nphase: {{initial: mirror}}\n")

    def start_cqlferry_skmsg(self):
        self.start_cqlferry("on")
