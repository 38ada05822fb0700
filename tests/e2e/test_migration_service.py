# SPDX-License-Identifier: Apache-2.0
"""A migration service, as the document describes it, drives an agent: Start, TableUpdate, Complete, Shutdown."""
import base64
import json
import socket
import os
import struct
import subprocess
import sys
import time
import uuid

import lab

TABLE_UPDATE, START, COMPLETE, SHUTDOWN, SUCCESS, FAILURE = range(6)
SERVICE, PROXY = 15000, 14000


class Service:
    """Sends on one connection, and reads both there and on its own port."""

    def __init__(self):
        self.listener = socket.create_server((lab.NODE_IP, SERVICE))
        self.listener.settimeout(20)
        self.out = self.back = None

    def connect(self):
        def dial():
            try:
                return socket.create_connection((lab.NODE_IP, PROXY), timeout=60)
            except ConnectionRefusedError:
                return None

        self.out = lab.wait_until(dial, 20, "the agent listens for the service")
        self.back = self.listener.accept()[0]
        self.back.settimeout(60)

    def send(self, kind, data=None):
        ident = str(uuid.uuid4())
        data = base64.b64encode(json.dumps(data).encode()).decode() if data is not None else None
        text = json.dumps({"ID": ident, "Type": kind, "Data": data, "Error": ""}).encode()
        self.out.sendall(struct.pack(">I", len(text)) + text)
        return ident

    @staticmethod
    def read(s):
        def exactly(n):
            b = b""
            while len(b) < n:
                more = s.recv(n - len(b))
                assert more, "closed"
                b += more
            return b

        return json.loads(exactly(struct.unpack(">I", exactly(4))[0]))

    def ask(self, kind, data=None):
        ident = self.send(kind, data)
        here, there = self.read(self.out), self.read(self.back)
        assert here == there and here["ID"] == ident and here["Data"] is None, (here, there)
        assert here["Type"] in (SUCCESS, FAILURE)
        return here["Type"] == SUCCESS, here["Error"]

    def close(self):
        for s in (self.listener, self.out, self.back):
            if s:
                s.close()


# Connections that were there before the agent served: says when the last of them was closed (CLOCK_MONOTONIC, the node's).
OLDER = """
import rawcql, select, sys, time
clients = [rawcql.Client(sys.argv[1]) for _ in range(int(sys.argv[2]))]
print("open", flush=True)
left = {c.socket.fileno(): c.socket for c in clients}
while left:
    for fd in select.select(list(left), [], [])[0]:
        try:
            gone = not left[fd].recv(65536)
        except OSError:
            gone = True
        if gone:
            del left[fd]
print(time.monotonic(), flush=True)
"""


def schema(keyspace):
    return {"Timestamp": "2026-01-02T03:04:05Z", "Tables": {keyspace: {"items": {"Keyspace": keyspace, "Name": "items",
            "Step": 3, "Error": None, "Priority": 0, "Lock": {}}}}, "Steps": 1, "TotalSteps": 3, "Speed": 0, "Lock": {}}


def test_a_service_drives_the_document_s_proxy(make_agent, pod, origin, target, keyspace, equal):
    environment = {"SOURCE_HOSTNAME": origin.address, "SOURCE_USERNAME": lab.USER, "SOURCE_PASSWORD": lab.PASSWORD,
                   "SOURCE_PORT": "9042", "ASTRA_HOSTNAME": target.address, "ASTRA_USERNAME": lab.USER,
                   "ASTRA_PASSWORD": lab.PASSWORD, "ASTRA_PORT": "9042", "PROXY_QUERY_PORT": "29042", "TEST": "true",
                   "MIGRATION_SERVICE_HOSTNAME": lab.NODE_IP, "MIGRATION_PORT": str(SERVICE),
                   "PROXY_SERVICE_HOSTNAME": lab.NODE_IP, "PROXY_PORT": str(PROXY)}
    service = Service()
    try:
        agent = make_agent(start=False, ebpf=False, only_environment=True, environment=environment)
        agent.socket = "/run/cqlferry/admin.sock"
        agent.start(ready=False)
        service.connect()
        status, text = agent.http("/readyz")
        assert status == 503 and "waiting for the Start" in text, text
        # Clients of the agent's port are not kept waiting: relayed, and not mirrored yet.
        pod.python("import rawcql, sys; rawcql.Client(sys.argv[1], int(sys.argv[2])).query(sys.argv[3])", lab.NODE_IP, "29042",
                   f"INSERT INTO {keyspace}.later (id, n) VALUES ('before', 1)")
        assert len(origin.run(f"SELECT * FROM {keyspace}.later")) == 1 and not target.run(f"SELECT * FROM {keyspace}.later")
        assert agent.status()["phase"] == "observe"
        assert not service.ask(COMPLETE)[0]
        assert service.ask(START, schema(keyspace)) == (True, "")
        agent.wait_ready()
        assert service.ask(START, schema(keyspace)) == (True, "")
        assert agent.status()["migrationService"]["tables"] == 1
        items = schema(keyspace)["Tables"][keyspace]["items"]
        assert service.ask(TABLE_UPDATE, dict(items, Step=4)) == (True, "")
        assert [(h["table"], h["by"]) for h in agent.status()["tablesOnHold"]] == [("items", "migration service")]
        assert service.ask(TABLE_UPDATE, dict(items, Step=8)) == (True, "")
        assert agent.status()["tablesOnHold"] == []
        load = lab.Load(pod, lab.NODE_IP, keyspace, prefix="svc", port=29042, protocol=4, writers=8, rate=20, seconds=12)
        load.wait_running()
        ok, why = service.ask(COMPLETE, schema(keyspace))
        assert ok, why
        assert agent.status()["phase"] == "finish"
        load.wait_running()
        stat = load.stop()
        assert stat["errors"] == 0, stat["causes"]
        assert service.ask(SHUTDOWN)[0]
        assert agent.process.wait(20) == 0
    finally:
        service.close()


def test_interception_waits_for_start_and_a_restart_does_not(make_agent, pod, origin, target, keyspace, equal):
    service = Service()
    migration = {"serviceHost": lab.NODE_IP, "servicePort": SERVICE, "proxyHost": lab.NODE_IP, "proxyPort": PROXY}
    try:
        agent = make_agent(start=False, migration=migration)
        agent.start(ready=False)
        service.connect()
        lab.wait_until(lambda: agent.http("/readyz")[0] == 503, 20, "readyz")
        early = lab.Load(pod, origin.address, keyspace, prefix="early", protocol=4, writers=2, rate=20, seconds=3)
        early.process.wait(60)
        stat = early.stop()
        assert stat["errors"] == 0 and stat["acknowledged"] > 0, stat
        assert agent.metric("cqlferry_sessions_opened_total") == 0, "nothing is steered before Start"
        # The rows that were written before are a load's business; the target gets them here by hand, as they are.
        origin.run(f"TRUNCATE {keyspace}.items")
        ok, why = service.ask(START, schema(keyspace))  # phase observe: Start brings mirror
        assert ok, why
        assert agent.status()["phase"] == "mirror"
        load = lab.Load(pod, origin.address, keyspace, prefix="late", protocol=4, writers=4, rate=20, seconds=4)
        load.process.wait(60)
        assert load.stop()["errors"] == 0
        assert agent.metric("cqlferry_sessions_opened_total") > 0
        assert agent.stop() == 0
        agent.start()  # ready without another Start
        assert "has been started before" in agent.log()
    finally:
        service.close()


def test_start_waits_for_connections_that_pass_by(make_agent, pod, origin, target, keyspace, tmp_path, monkeypatch):
    """Success lets the service unload: by then no older connection may write past the agent. Where that cannot be seen, it is said."""
    service = Service()
    migration = {"serviceHost": lab.NODE_IP, "servicePort": SERVICE, "proxyHost": lab.NODE_IP, "proxyPort": PROXY}
    less = tmp_path / "agent"
    less.write_text(f'#!/bin/sh\nexec setpriv --inh-caps -sys_admin --bounding-set -sys_admin {lab.BINARY} "$@"\n')
    less.chmod(0o755)
    older = pod.start([sys.executable, "-c", OLDER, origin.address, "45"], text=True, stdout=subprocess.PIPE,
                      env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(__file__))))
    try:
        assert older.stdout.readline().strip() == "open"
        agent = make_agent(start=False, migration=migration)
        with monkeypatch.context() as m:
            m.setattr(lab, "BINARY", str(less))
            agent.start(ready=False)
        service.connect()
        ok, why = service.ask(START, schema(keyspace))
        assert not ok and "CAP_SYS_ADMIN" in why, why
        assert any("CAP_SYS_ADMIN" in p for p in agent.status()["problems"]), agent.status()
        time.sleep(2.5)
        assert agent.log().count("are not all found and closed") == 1, agent.log()
        agent.stop()
        agent.start()
        service.connect()
        assert service.ask(START, schema(keyspace)) == (True, "")
        answered = time.monotonic()
        assert float(older.communicate(timeout=20)[0]) <= answered, "Success while older connections were open"
        assert agent.status()["interception"]["strays"] == 0
        assert "problems" not in agent.status()
    finally:
        older.kill()
        older.wait()
        service.close()
