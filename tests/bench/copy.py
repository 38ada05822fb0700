#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""copy.py BUILD: `cqlferry copy` against cqlsh's COPY, for the table in docs/copy.md.

A Cassandra node of its own on a loopback address gets 300,000 rows of ten columns (BENCH_ROWS), by each program, and gives them back;
then the fake server, which costs next to nothing, shows what the client alone can do. Prints Markdown. Each number is one run: the machine
should have nothing else to do. Files and node are gone afterwards.
"""
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LAB = os.path.join(HERE, "..", "lab")
COLUMNS = "id int PRIMARY KEY, a text, b bigint, c double, d boolean, e timestamp, f text, g int, h uuid, i blob"
NAMES = "id,a,b,c,d,e,f,g,h,i"
ROWS = int(os.environ.get("BENCH_ROWS", "300000"))
FAKE_ROWS = 20 * ROWS


def make_file(path):
    random.seed(1)
    with open(path, "w", newline="", encoding="utf-8") as f:
        for i in range(ROWS):
            f.write(f"{i},name-{i},{random.randint(0, 10**9)},{random.random() * 1000:.6f},{'True' if i % 2 else 'False'},"
                    f"2024-01-{i % 28 + 1:02d} 10:20:30.{i % 1000:03d}+0000,text of row {i} with some words,{random.randint(0, 2**31 - 1)},"
                    f"123e4567-e89b-12d3-a456-{i:012x},0x{i:08x}\r\n")


def ticks(pid):
    if not pid:
        return 0.0
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_kib(pid):
    """Of the program itself; ru_maxrss would count what this one had when it forked. cqlsh's children are not in it."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            return next((int(x.split()[1]) for x in f if x.startswith("VmHWM")), 0)
    except OSError:
        return 0


def measure(command, server, env):
    """(seconds, client CPU s, server CPU s, client's peak memory in MiB)"""
    before, began, cpu = ticks(server), time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(os.path.join(env["HOME"], "log"), "wb") as log:
        p = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=env["HOME"])
        peak = 0
        while p.poll() is None:
            peak = max(peak, peak_kib(p.pid))
            time.sleep(0.02)
    seconds, after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if p.returncode:
        with open(os.path.join(env["HOME"], "log"), encoding="utf-8", errors="replace") as log:
            print(f"{os.path.basename(command[0])} ended with {p.returncode}: {log.read()[-500:]}", file=sys.stderr)
        return None
    used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    return seconds, used, ticks(server) - before, peak / 1024


def line(what, rows, result, server=True):
    if result is None:
        print(f"| {what} | failed | | | |", flush=True)
        return
    seconds, client, at_server, memory = result
    print(f"| {what} | {rows / seconds:,.0f} | {client:.1f} | {f'{at_server:.1f}' if server else ''} | {memory:.0f} |", flush=True)


def main():
    build = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "..", "build"))
    cache = subprocess.run([os.path.join(LAB, "deps.sh"), "path"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    cqlsh, ferry = os.path.join(cache, "venv", "bin", "cqlsh"), os.path.join(build, "cqlferry")
    directory = tempfile.mkdtemp(prefix="cqlferry-bench-")
    env = dict(os.environ, HOME=directory, PYTHONWARNINGS="ignore", LAB_RUN=os.path.join(directory, "lab"), LAB_JIT="full", LAB_HEAP="2g",
               XDG_CACHE_HOME=os.path.dirname(cache))
    node, fake, host = os.path.join(LAB, "cassandra.sh"), None, "127.0.7.1"
    source, out = os.path.join(directory, "in.csv"), os.path.join(directory, "out.csv")
    try:
        make_file(source)
        subprocess.run([node, "start", "bench1", host], env=env, check=True, stdout=sys.stderr)
        subprocess.run([node, "wait", "bench1", "240"], env=env, check=True, stdout=sys.stderr)
        with open(os.path.join(env["LAB_RUN"], "bench1", "pid"), encoding="utf-8") as f:
            server = int(f.read())
        tables = ("warm", "cqlsh", "cqlferry")
        subprocess.run([cqlsh, host, "-e", "CREATE KEYSPACE b WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1};" +
                        "".join(f"CREATE TABLE b.{t} ({COLUMNS});" for t in tables)], env=env, check=True, stderr=subprocess.DEVNULL)
        print(f"{ROWS:,} rows of ten columns, {os.path.getsize(source) / 2**20:.0f} MiB; {os.cpu_count()} cores for client and server together.\n")
        print("| | rows/s | client CPU s | server CPU s | client MiB |\n| --- | ---: | ---: | ---: | ---: |")
        # The server's compiler has to have seen the work before it is measured.
        measure([ferry, "copy", "from", f"b.warm({NAMES})", source, "--host", host], server, env)
        measure([ferry, "copy", "to", f"b.warm({NAMES})", out, "--host", host], server, env)
        line("cqlsh COPY FROM", ROWS, measure([cqlsh, host, "--request-timeout", "60", "-e", f"COPY b.cqlsh ({NAMES}) FROM '{source}'"], server, env))
        line("cqlferry copy from", ROWS, measure([ferry, "copy", "from", f"b.cqlferry({NAMES})", source, "--host", host], server, env))
        line("cqlsh COPY TO", ROWS, measure([cqlsh, host, "--request-timeout", "60", "-e", f"COPY b.cqlsh ({NAMES}) TO '{out}'"], server, env))
        for mode in ("direct", "proxy"):
            line(f"cqlferry copy to, {mode}", ROWS,
                 measure([ferry, "copy", "to", f"b.cqlferry({NAMES})", out, "--host", host, "--connectionmode", mode], server, env))
        subprocess.run([node, "stop", "bench1", "--kill"], env=env, check=True, stdout=sys.stderr)
        fake = subprocess.Popen([os.path.join(build, "tests", "bench", "fakecql"), "--listen", "127.0.7.2:9042", "--rows", str(FAKE_ROWS)])
        time.sleep(0.5)
        line("fake server: copy to", FAKE_ROWS, measure([ferry, "copy", "to", f"bench.rows({NAMES})", "/dev/null", "--host", "127.0.7.2"], 0, env), False)
        line("fake server: copy from", ROWS, measure([ferry, "copy", "from", f"bench.rows({NAMES})", source, "--host", "127.0.7.2"], 0, env), False)
    finally:
        if fake:
            fake.terminate()
            fake.wait()
        subprocess.run([node, "stop", "bench1", "--kill"], env=env, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
