#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tls_cost.py BUILD [SECONDS]: CPU that one request costs the agent, with and without TLS to the origin.

    cqlload ─▶ agent ─▶ HAProxy, mode tcp, plain or ends TLS 1.3 ─▶ fakecql

All on loopback addresses, one worker. Only the agent's CPU clock is read, so that what HAProxy and the server cost is left out; plain and TLS
take turns, five times, and the lowest counts: what else runs on the machine can only add. Prints the table of docs/tls.md.
"""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(sys.argv[1]).resolve()
SECONDS = sys.argv[2] if len(sys.argv) > 2 else "3"
SERVER, PLAIN, TLS, AGENT = (f"127.0.0.1:{port}" for port in (19991, 19992, 19993, 19994))
CASES = [("read", 100, 1, 1), ("read", 100, 16, 8), ("write", 100, 16, 8), ("read", 65536, 4, 4)]


def wait_for(address):
    host, port = address.split(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nobody listens at {address}")


def cpu_seconds(pid):
    return time.clock_gettime((~pid << 3) | 2)  # see clock_getcpuclockid(3)


class Lab:
    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def start(self, argv, address, **more):
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.running.append(process)
        wait_for(address)
        return process

    def stop(self, process):
        process.terminate()
        process.wait(20)
        self.running.remove(process)

    def servers(self):
        pem, key = self.directory / "node.pem", self.directory / "node.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=node", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", pem], check=True, stderr=subprocess.DEVNULL)
        (self.directory / "both.pem").write_text(pem.read_text() + key.read_text())
        (self.directory / "haproxy.cfg").write_text(f"""global
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen plain
  bind {PLAIN}
  server s {SERVER}
listen tls
  bind {TLS} ssl crt {self.directory}/both.pem ssl-min-ver TLSv1.3
  server s {SERVER}
""")
        self.start([BUILD / "tests/bench/fakecql", "--listen", SERVER], SERVER)
        self.start([shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", self.directory / "haproxy.cfg"], TLS)

    def agent(self, tls):
        host, port = (TLS if tls else PLAIN).split(":")
        environment = dict(os.environ, CQLFERRY_ORIGIN_CONTACT_POINTS=host, CQLFERRY_ORIGIN_PORT=port, CQLFERRY_LISTEN_PORT=AGENT.split(":")[1],
                           CQLFERRY_LISTEN_ADDRESS="127.0.0.1", CQLFERRY_INTERCEPT_ENABLED="false", CQLFERRY_WORKERS="1",
                           CQLFERRY_STATE_DIRECTORY=str(self.directory / "state"), CQLFERRY_ADMIN_SOCKET=str(self.directory / "admin.sock"),
                           CQLFERRY_HTTP_PORT="0")
        (self.directory / "empty.yaml").write_text("")
        if tls:
            environment.update(CQLFERRY_ORIGIN_TLS_ENABLED="true", CQLFERRY_ORIGIN_TLS_CA_FILE=str(self.directory / "node.pem"))
        return self.start([BUILD / "cqlferry", "agent", "--config", self.directory / "empty.yaml"], AGENT, env=environment)


def measure(process, operation, size, connections, inflight):
    """Microseconds of the agent's CPU for each request."""
    before = cpu_seconds(process.pid)
    done = subprocess.run([str(BUILD / "tests/bench/cqlload"), "--host", AGENT, "--op", operation, "--bytes", str(size), "--connections",
                           str(connections), "--inflight", str(inflight), "--seconds", SECONDS, "--warmup", "0", "--setup"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    result = json.loads(done.stdout)
    return (cpu_seconds(process.pid) - before) / result["requests"] * 1e6


def main():
    with tempfile.TemporaryDirectory(prefix="cqlferry-tls-cost-") as directory:
        lab = Lab(pathlib.Path(directory))
        found = {}
        try:
            lab.servers()
            for _ in range(5):
                for tls in (False, True):
                    agent = lab.agent(tls)
                    for case in CASES:
                        found.setdefault((case, tls), []).append(measure(agent, *case))
                    lab.stop(agent)
        finally:
            for process in list(lab.running):
                lab.stop(process)
    print("| Requests | In flight | plain | TLS 1.3 | more |\n|---|---|---|---|---|")
    for case in CASES:
        operation, size, connections, inflight = case
        plain, tls = (min(found[case, t]) for t in (False, True))
        print(f"| {operation}, {size:,} B | {connections * inflight} on {connections} connections | {plain:.1f} µs | {tls:.1f} µs | {tls - plain:.1f} µs |")


main()
