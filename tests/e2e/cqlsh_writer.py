#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cqlsh_writer.py: a person at an unmodified cqlsh, who types statements and reads the answers.

One cqlsh process stays open. After each statement comes CONSISTENCY, which cqlsh answers by itself, without the cluster:
its line says that the statement before it is done, and anything else that was printed is an error. The statement is then
typed again, as a person would; when cqlsh has ended or is silent, in a new one. Record and .stat as writer.py's.
"""
import argparse
import os
import select
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import workload  # noqa: E402
from writer import Record, read_mode  # noqa: E402

KINDS = ["insert", "update", "delete", "delete_column", "batch_text", "event", "insert_ttl", "insert_timestamp"]


class Shell:
    def __init__(self, args):
        command = [args.cqlsh, "--no-color", "--request-timeout", str(args.timeout), "--connect-timeout", "10"]
        if args.user:
            command += ["-u", args.user, "-p", args.password]
        command += ["-k", args.keyspace, args.contact, str(args.port)]
        # cqlsh wraps its own stdin; unbuffered, so that its line comes when it is printed.
        env = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore", HOME=os.environ.get("TMPDIR", "/tmp"))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
        self.buffer = b""
        self.answer()

    def line(self, deadline):
        while b"\n" not in self.buffer:
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.time()))[0]:
                raise TimeoutError("cqlsh does not answer")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise ConnectionError("cqlsh ended: " + self.buffer.decode(errors="replace")[-200:])
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode(errors="replace").strip()

    def answer(self, seconds=30):
        self.process.stdin.write(b"CONSISTENCY;\n")
        self.process.stdin.flush()
        deadline, printed = time.time() + seconds, []
        while True:
            line = self.line(deadline)
            if line.startswith("Current consistency level is"):
                return [x for x in printed if x]
            printed.append(line)

    def execute(self, statement):
        self.process.stdin.write(statement.encode() + b";\n")
        printed = self.answer()
        if printed:
            raise RuntimeError(" ".join(printed)[:300])

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def cql(kind, changes):
    if kind == "batch_text":
        return f"BEGIN BATCH {'; '.join(workload.statement(c) for c in changes)}; APPLY BATCH"
    if kind == "delete_column":
        return f"DELETE note FROM items WHERE id = {workload.text(changes[0][1][0])}"
    suffix = {"insert_ttl": " USING TTL 86400", "insert_timestamp": f" USING TIMESTAMP {workload.now_micros()}"}
    return workload.statement(changes[0], suffix.get(kind, ""))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cqlsh", default=os.path.join(os.path.dirname(sys.executable), "cqlsh"))
    p.add_argument("--contact", required=True)
    p.add_argument("--port", type=int, default=9042)
    p.add_argument("--user")
    p.add_argument("--password", default="")
    p.add_argument("--keyspace", required=True)
    p.add_argument("--record", required=True)
    p.add_argument("--rate", type=float, default=5)
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--prefix", default="cqlsh")
    p.add_argument("--mode-file")
    p.add_argument("--timeout", type=int, default=10)
    args = p.parse_args()

    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stop.set())
    # $$ and comments are cqlsh's to interpret; a person types values that it passes on.
    plan = workload.Plan(args.prefix, 900, args.keyspace, kinds=KINDS)
    record, shell = Record(args.record), None
    end = time.time() + args.seconds if args.seconds else None
    due = time.time()
    while not stop.is_set() and (end is None or time.time() < end):
        mode = plan.mode = read_mode(args)
        kind, changes = plan.next()
        if shell is None:  # its start is no pause of the statement's
            try:
                shell = Shell(args)
            except (OSError, RuntimeError) as e:
                record.error(e)
        stop.wait(max(0.0, due - time.time()))
        due = max(due + 1 / args.rate, time.time())
        began, answered = time.time(), False
        while not answered:
            try:
                if shell is None:
                    shell = Shell(args)
                shell.execute(cql(kind, changes))
                answered = True
            except RuntimeError as e:  # cqlsh said so, and goes on
                record.error(e)
                if stop.wait(0.3) and time.time() - began > 10:
                    break
            except OSError as e:
                record.error(e)
                if shell:
                    shell.close()
                shell = None
                if stop.wait(0.3) and time.time() - began > 10:
                    break
        if answered:
            record.ack(900, began, changes, "beat" if plan.beats else mode)
        else:
            record.unknown(900, began, changes)
        record.stat(True, True)
    if shell:
        shell.close()
    record.stat(False, True)


if __name__ == "__main__":
    main()
