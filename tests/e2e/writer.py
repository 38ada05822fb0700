#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""writer.py: an application. N threads write through an unmodified driver and keep a record of what was acknowledged.

It knows nothing of the agent: it gets contact points and a keyspace as any application does. Each line of the record
(--record) is one operation: ["a", writer, t_ms, latency_ms, changes] acknowledged, ["?", …] never answered.
RECORD.stat is rewritten four times a second: acknowledged, errors, longest pause and its time.
It stops after --seconds, or at SIGTERM with its record complete; exit status 0 unless no session could be made.
"""
import argparse
import json
import os
import signal
import sys
import threading
import time

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import ConstantReconnectionPolicy, RoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, SimpleStatement

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import workload  # noqa: E402


def connect(args):
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(RoundRobinPolicy()), request_timeout=args.timeout,
        consistency_level=getattr(ConsistencyLevel, args.consistency))
    more = {}
    if args.compression is not None:
        more["compression"] = {"none": False, "any": True}.get(args.compression, args.compression)
    if args.protocol:
        more["protocol_version"] = args.protocol
    if args.user:
        more["auth_provider"] = PlainTextAuthProvider(args.user, args.password)
    if args.no_schema:
        more["schema_metadata_enabled"] = False
    return Cluster(args.contact.split(","), port=args.port, execution_profiles={EXEC_PROFILE_DEFAULT: profile},
                   reconnection_policy=ConstantReconnectionPolicy(args.reconnect, None), connect_timeout=10,
                   idle_heartbeat_interval=args.heartbeat, **more)


MODE = ["all", 0.0]  # what --mode-file said, and when it was last looked at


def read_mode(args):
    if args.mode_file and time.time() - MODE[1] > 0.1:
        MODE[1] = time.time()
        with open(args.mode_file, encoding="utf-8") as f:
            MODE[0] = f.read().strip() or MODE[0]
    return MODE[0]


class Record:
    def __init__(self, path):
        self.path = path
        self.file = open(path, "w", encoding="utf-8")
        self.lock = threading.Lock()
        self.acknowledged = self.errors = self.unanswered = 0
        self.longest_ms = self.longest_at = 0.0
        self.causes = {}
        self.modes = {}  # writer -> the mode of its last acknowledged operation
        self.last_ack = time.time()

    def ack(self, writer, began, changes, mode="all"):
        now = time.time()
        pause = (now - began) * 1000
        line = json.dumps(["a", writer, round(began * 1000), round(pause, 1), changes], ensure_ascii=False)
        with self.lock:
            self.file.write(line + "\n")
            self.acknowledged += 1
            self.modes[writer] = mode
            self.last_ack = now
            if pause > self.longest_ms:
                self.longest_ms, self.longest_at = pause, began

    def error(self, cause):
        with self.lock:
            self.errors += 1
            key = f"{type(cause).__name__}: {str(cause)[:160]}"
            if key in self.causes or len(self.causes) < 20:
                self.causes[key] = self.causes.get(key, 0) + 1

    def unknown(self, writer, began, changes):
        with self.lock:
            self.file.write(json.dumps(["?", writer, round(began * 1000), 0, changes], ensure_ascii=False) + "\n")
            self.unanswered += 1

    def stat(self, running, ready):
        with self.lock:
            self.file.flush()
            data = {"acknowledged": self.acknowledged, "errors": self.errors, "unanswered": self.unanswered,
                    "longest_ms": round(self.longest_ms, 1), "longest_at": self.longest_at, "causes": self.causes,
                    "last_ack": self.last_ack, "modes": sorted(set(self.modes.values())), "running": running, "ready": ready}
        with open(self.path + ".stat.new", "w", encoding="utf-8") as f:
            json.dump(data, f)
        os.replace(self.path + ".stat.new", self.path + ".stat")


class Writer(threading.Thread):
    def __init__(self, number, session, plan, record, args, stop, roams):
        super().__init__(name=f"writer{number}", daemon=True)
        self.number, self.session, self.plan, self.record = number, session, plan, record
        self.args, self.stop, self.roams = args, stop, roams
        self.statements = {}

    def prepare(self, text):
        if text not in self.statements:
            self.statements[text] = self.session.prepare(text)
        return self.statements[text]

    def execute(self, kind, changes):
        session = self.session
        if kind in ("insert_prepared", "update_prepared", "delete_prepared", "event_static"):
            text, values = workload.prepared(changes[0])
            session.execute(self.prepare(text), values)
        elif kind == "insert_ttl":
            session.execute(workload.statement(changes[0], " USING TTL 86400"))
        elif kind == "insert_timestamp":
            session.execute(workload.statement(changes[0], f" USING TIMESTAMP {workload.now_micros()}"))
        elif kind == "delete_column":
            session.execute(f"DELETE note FROM items WHERE id = {workload.text(changes[0][1][0])}")
        elif kind == "batch_text":
            inner = "; ".join(workload.statement(c) for c in changes)
            session.execute(f"BEGIN BATCH {inner}; APPLY BATCH;")
        elif kind == "batch":
            batch = BatchStatement(BatchType.UNLOGGED if self.plan.step % 2 else BatchType.LOGGED)
            for change in changes[:-1]:
                text, values = workload.prepared(change)
                batch.add(self.prepare(text), values)
            batch.add(SimpleStatement(workload.statement(changes[-1])))
            session.execute(batch)
        elif kind == "request_keyspace" and self.args.protocol == 5:
            session.execute(SimpleStatement(workload.statement(changes[0]), keyspace=self.plan.keyspace))
        else:
            session.execute(workload.statement(changes[0]))

    def run(self):
        pause = 1.0 / self.args.rate if self.args.rate else 0
        due = time.time() + pause * (self.number % 10) / 10
        while not self.stop.is_set():
            if pause:
                self.stop.wait(max(0.0, due - time.time()))
                due = max(due + pause, time.time())
            if self.roams and self.plan.step % 20 == 19:
                other = self.plan.keyspace
                base = self.args.keyspace
                other = workload.second_keyspace(base) if other == base else base
                if not self.attempt(time.time(), lambda o=other: self.session.set_keyspace(o), True):
                    return
                self.plan.keyspace = other
                self.plan.live.clear()  # they lie in the other keyspace
                self.statements.clear()  # and so do the prepared statements
            mode = self.plan.mode = read_mode(self.args)
            kind, changes = self.plan.next()
            began = time.time()
            if self.attempt(began, lambda k=kind, c=changes: self.execute(k, c), not self.args.once):
                # A beat that covers an older one is still of the old mode.
                self.record.ack(self.number, began, changes, "beat" if self.plan.beats else mode)
            else:
                self.record.unknown(self.number, began, changes)
                self.plan.forget(changes)

    def attempt(self, began, action, again):
        """As an application would: the same again until it succeeds. All statements of the plan are idempotent."""
        while True:
            try:
                action()
                return True
            except Exception as e:  # whatever the driver raises is an error that the application sees
                self.record.error(e)
                if self.stop.wait(0.1) and time.time() - began > 5 or not again:
                    return False


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--contact", required=True)
    p.add_argument("--port", type=int, default=9042)
    p.add_argument("--protocol", type=int)
    p.add_argument("--compression", choices=("none", "any", "lz4", "snappy"))
    p.add_argument("--user")
    p.add_argument("--password", default="")
    p.add_argument("--keyspace", required=True)
    p.add_argument("--record", required=True)
    p.add_argument("--writers", type=int, default=4)
    p.add_argument("--sessions", type=int, default=0, help="0 = one for four writers")
    p.add_argument("--rate", type=float, default=20, help="operations a second of each writer, 0 = as fast as it goes")
    p.add_argument("--seconds", type=float, default=0, help="0 = until SIGTERM")
    p.add_argument("--prefix", default="p")
    p.add_argument("--kinds", help="only these kinds of operation, separated by commas")
    p.add_argument("--mode-file", help="a file that holds the plan's mode, read again and again")
    p.add_argument("--size", type=int, default=0, help="bytes added to each value")
    p.add_argument("--timestamps", choices=("mixed", "client", "server"), default="mixed")
    p.add_argument("--timeout", type=float, default=10)
    p.add_argument("--consistency", default="LOCAL_ONE")
    p.add_argument("--once", action="store_true", help="what fails is not tried again: it stays unanswered")
    p.add_argument("--heartbeat", type=float, default=30, help="seconds between a driver's heartbeats, 0 = none")
    p.add_argument("--no-schema", action="store_true", help="connect without reading the schema: sooner back after a crash")
    p.add_argument("--reconnect", type=float, default=0.5, help="seconds between attempts to connect again")
    args = p.parse_args()

    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stop.set())
    record = Record(args.record)
    count = args.sessions or max(2, args.writers // 4)
    clusters, threads = [], []
    kinds = args.kinds.split(",") if args.kinds else None
    sessions = []
    for i in range(min(count, args.writers)):
        cluster = connect(args)
        keyspace = args.keyspace if i % 2 == 0 else workload.second_keyspace(args.keyspace)
        session = cluster.connect(keyspace)
        session.use_client_timestamp = args.timestamps == "client" or (args.timestamps == "mixed" and i // 2 % 2 == 0)
        clusters.append(cluster)
        sessions.append((session, keyspace))
    for n in range(args.writers):
        index = n % len(sessions)
        session, keyspace = sessions[index]
        # The last session carries one writer alone when there are enough: that one changes its keyspace by USE.
        alone = len(sessions) > 2 and index == len(sessions) - 1
        if alone and n >= len(sessions):
            index = n % (len(sessions) - 1)
            session, keyspace = sessions[index]
            alone = False
        plan = workload.Plan(args.prefix, n, keyspace, kinds=kinds, size=args.size)
        threads.append(Writer(n, session, plan, record, args, stop, alone))
    for t in threads:
        t.start()
    end = time.time() + args.seconds if args.seconds else None
    while not stop.wait(0.25) and (end is None or time.time() < end):
        record.stat(True, True)
    stop.set()
    for t in threads:
        t.join(20)
    record.file.flush()
    record.stat(False, True)
    for c in clusters:
        c.shutdown()
    print(json.dumps({"acknowledged": record.acknowledged, "errors": record.errors,
                      "longest_ms": round(record.longest_ms, 1), "causes": record.causes}))


if __name__ == "__main__":
    main()
