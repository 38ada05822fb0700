# SPDX-License-Identifier: Apache-2.0
"""Ways that are cut between the lab's namespaces, and what stands in front of nodes: all of it in namespaces of the lab."""
import os
import subprocess
import sys

import lab

# How an address becomes unreachable. "unroutable" is a route; the other two are a packet filter's.
CUTS = ("drop", "reject", "unroutable")


def run(*command, where=None, check=True):
    prefix = ["nsenter", f"--net=/run/netns/{where}", "--"] if where else []
    r = subprocess.run([*prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
    if check and r.returncode:
        raise lab.LabError(f"{' '.join(command)}: {r.stderr}")
    return r


def start_at(pod, command, **more):
    """A program at the pod's address that is nobody's client: outside the cgroups of which the agent steers connections."""
    return subprocess.Popen(["nsenter", f"--net=/run/netns/{pod.name}", "--", *command], stdin=subprocess.DEVNULL, **more)


class Cut:
    """with Cut("drop", [address, …], [None, "pod1"]): no packet to those addresses leaves the node's namespace (None) or the pod's.

    Packets of the node's namespace only: what bridges between pods does not pass its output hook, and has no need to.
    """

    def __init__(self, how, addresses, places=(None,)):
        self.how, self.addresses, self.places = how, list(addresses), list(places)

    def __enter__(self):
        for place in self.places:
            if self.how == "unroutable":
                for address in self.addresses:
                    run("ip", "route", "add", "unreachable", f"{address}/32", where=place)
                continue
            verdict = "drop" if self.how == "drop" else "reject with tcp reset"
            run("nft", f"add table inet cqlferrycut; add chain inet cqlferrycut out {{ type filter hook output priority 0; }}; "
                       f"add rule inet cqlferrycut out ip daddr {{ {', '.join(self.addresses)} }} tcp dport 9042 {verdict}", where=place)
        return self

    def __exit__(self, *unused):
        self.end()

    def end(self):
        places, self.places = self.places, []
        for place in places:
            if self.how == "unroutable":
                for address in self.addresses:
                    run("ip", "route", "del", "unreachable", f"{address}/32", where=place, check=False)
            else:
                run("nft", "delete table inet cqlferrycut", where=place, check=False)


def assert_fell_back(agent, replica):
    """While the replica is away still: at any moment it may just be asked again."""
    metrics = agent.metrics()
    ways = {k: v for k, v in metrics.items() if k.startswith(("cqlferry_dials_way", "cqlferry_replicas"))}
    assert metrics['cqlferry_dials_way_total{way="fallback"}'] >= 1, ways
    assert metrics['cqlferry_replicas{state="unreachable"}'] + metrics['cqlferry_replicas{state="probing"}'] == 1, ways
    known = {r["replica"]: (r["state"], r["failures"]) for r in agent.status()["connections"]["replicas"]}
    assert known[replica][0] in ("unreachable", "probing") and known[replica][1] > 0, known
    assert metrics['cqlferry_sessions_closed_total{reason="dial"}'] == 0


class Balancer:
    """HAProxy in a pod: one address for several nodes, whose own nobody needs to reach."""

    def __init__(self, pod, addresses, port=9042):
        self.pod, self.port = pod, port
        self.path = os.path.join(lab.RUN, f"balancer-{pod.name}-{port}.cfg")
        lines = ["global", "  maxconn 2000", "defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 1h", "  timeout server 1h",
                 "listen cql", f"  bind {pod.address}:{port}", "  balance roundrobin"]
        lines += [f"  server n{i} {address}:9042" for i, address in enumerate(addresses)]
        with open(self.path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        self.process = start_at(pod, ["haproxy", "-db", "-f", self.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_until(lambda: pod.run(["bash", "-c", f": <>/dev/tcp/{pod.address}/{port}"], check=False).returncode == 0, 10,
                       "HAProxy listens", step=0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Sidecar:
    """A mesh's sidecar on the agent's node: every connection to `addresses` is redirected to it, and taken; passed on are only those to
    `allowed`, the others are closed."""

    MARK, PORT = 0x51DE, 15001

    def __init__(self, addresses, allowed):
        self.process = subprocess.Popen([sys.executable, os.path.join(lab.HERE, "sidecar.py"), str(self.PORT), str(self.MARK), *allowed],
                                        stdin=subprocess.DEVNULL)
        lab.wait_until(self.listens, 10, "the sidecar listens")
        run("nft", "add table ip cqlferrymesh; add chain ip cqlferrymesh out { type nat hook output priority -100; }; "
                   f"add rule ip cqlferrymesh out ip daddr {{ {', '.join(addresses)} }} tcp dport 9042 meta mark != {self.MARK} "
                   f"redirect to :{self.PORT}")

    def listens(self):
        return f":{self.PORT} " in run("ss", "-Hltn").stdout

    def stop(self):
        run("nft", "delete table ip cqlferrymesh", check=False)
        self.process.kill()
        self.process.wait()


class Tunnel:
    """ssh -L by OpenSSH: the agent's node has a port on its loopback that ends at a node, through a bastion."""

    def __init__(self, pod, address, port=9142):
        self.directory = os.path.join(lab.RUN, "ssh")
        os.makedirs(self.directory, exist_ok=True)
        os.makedirs("/run/sshd", exist_ok=True)
        for name in ("host", "user"):
            if not os.path.exists(self.file(name)):
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.file(name))
        self.port = port
        log = open(self.file("log"), "ab")
        self.server = start_at(pod, ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", self.file("host"), "-o", "UsePAM=no", "-o",
                                     "StrictModes=no", "-o", f"AuthorizedKeysFile={self.file('user.pub')}", "-o", "PidFile=none"],
                               stdout=log, stderr=log)
        lab.wait_until(lambda: pod.run(["bash", "-c", f": <>/dev/tcp/{pod.address}/2222"], check=False).returncode == 0, 10, "sshd listens", step=0.2)
        self.client = subprocess.Popen(["ssh", "-F", "/dev/null", "-N", "-i", self.file("user"), "-p", "2222",
                                        "-L", f"127.0.0.1:{port}:{address}:9042", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
                                        "-o", "BatchMode=yes", f"root@{pod.address}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        lab.wait_until(lambda: f"127.0.0.1:{port} " in run("ss", "-Hltn").stdout, 10, lambda: f"the tunnel; {lab.tail(self.file('log'))}")

    def file(self, name):
        return os.path.join(self.directory, name)

    def stop(self):
        for process in (self.client, self.server):
            process.kill()
            process.wait()
