# SPDX-License-Identifier: Apache-2.0
"""Ways that are cut between the lab's namespaces, and what stands in front of nodes: all of it in namespaces of the lab."""
import os
import subprocess

import lab

# How an address becomes unreachable. "unroutable" is a route; the other two are a packet filter's.
CUTS = ("drop", "reject", "unroutable")


def run(*command, where=None, check=True):
    prefix = ["nsenter", f"--net=/run/netns/{where}", "--"] if where else []
    r = subprocess.run([*prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
    if check and r.returncode:
        raise lab.LabError(f"{' '.join(command)}: {r.stderr}")
    return r


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
        self.process = pod.start(["haproxy", "-db", "-f", self.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_until(lambda: pod.run(["bash", "-c", f": <>/dev/tcp/{pod.address}/{port}"], check=False).returncode == 0, 10,
                       "HAProxy listens", step=0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
