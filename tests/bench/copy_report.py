# SPDX-License-Identifier: Apache-2.0
"""Makes benchmarks-copy.md of copy.json; never invents a figure. What copybench.py measured is described there.

Ratios are taken within a round, where both met the same machine; the median of the rounds is printed, with the smallest and
largest beside it, and a target is judged on that median."""
import json
import pathlib

from report import copy_part, median, number, spread, table

WAYS = {"cqlsh": "cqlsh", "direct": "cqlferry, direct", "proxy": "cqlferry, proxy: all by the first node", "haproxy": "cqlferry, proxy: HAProxy",
        "refused": "cqlferry, auto: the second node refuses", "dropped": "cqlferry, auto: the second node drops packets"}
CLUSTERS = {"one": "one node", "two": "two nodes", "fake": "fake server"}

NOTES = """## How

- {rows:,} rows of ten columns, {mib:.0f} MiB; Cassandra with one replica of each row on the same {cpus} cores as the client and, where it
  is used, HAProxy 2 (mode tcp). Every option is at its default. Protocol v4 without compression.
- *server's share*: the servers' CPU time over the run's seconds times {cpus} cores. What is missing to 100 % is the client's, HAProxy's, the
  kernel's on behalf of nobody, and idle. The seconds are those of the whole command, from its start to its end.
- COPY FROM writes into an empty table, COPY TO reads what lies in flushed files. Before each measurement the servers have come to rest.
- Two nodes on {cpus} cores: that both work at once cannot make it faster here. What proxy mode costs there is Cassandra's own second hop, for
  each row that lies on the other node; a driver that knows no tokens pays the same.
- *drops packets*: the time-out of {timeout} s (`--connect-timeout {timeout}`) is in the seconds.
- The fake server answers from memory and takes rows without looking at them. `copy from` reads the file {files} times over.
- cqlsh has several processes; its memory is not shown."""


def cell_name(c):
    text = f"{CLUSTERS[c['cluster']]}, {c['direction']}, {c['way']}"
    return text + (f", {c['processes']} threads" if c["processes"] else "")


class Results:
    def __init__(self, out):
        data = json.loads((pathlib.Path(out) / "copy.json").read_text())
        self.run, self.rows = data["run"], data["rows"]

    def by_round(self, key, cluster, direction, way, processes=0):
        wanted = {"cluster": cluster, "direction": direction, "way": way, "processes": processes}
        return {r["round"]: r[key] for r in self.rows if r[key] is not None and all(r[k] == v for k, v in wanted.items())}

    def values(self, key, *where):
        return list(self.by_round(key, *where).values())

    def against(self, key, one, other):
        a, b = self.by_round(key, *one), self.by_round(key, *other)
        return [a[n] / b[n] for n in a if b.get(n)]


def target_lines(d):
    rows = []

    def add(text, values, unit, limit, at_least=True):
        value, sign = median(values), "≥" if at_least else "≤"
        if value is None:
            rows.append([text, f"{sign} {number(limit)} {unit}", "not measured"])
            return
        good = value >= limit if at_least else value <= limit
        rows.append([text, f"{sign} {number(limit)} {unit}", f"{spread(values)} {unit}, " + ("reached" if good else "**not reached**")])

    for direction, limit in (("from", 25000), ("to", 75000)):
        where = ("one", direction, "direct")
        add(f"copy {direction}, one node", d.values("rate", *where), "rows/s", limit)
        add(f"copy {direction}: server's share of all cores", [100 * v for v in d.values("server_share", *where)], "%", 85)
        add(f"copy {direction}: client CPU of cqlsh's", d.against("client_cpu", where, ("one", direction, "cqlsh")), "×", 0.1, False)
    for direction in ("from", "to"):
        add(f"copy {direction}: proxy mode of direct, one node", d.against("rate", ("one", direction, "proxy"), ("one", direction, "direct")), "×", 0.8)
        add(f"copy {direction}: behind HAProxy of direct, one node", d.against("rate", ("one", direction, "haproxy"), ("one", direction, "direct")),
            "×", 0.8)
        add(f"copy {direction}: behind HAProxy of direct, two nodes", d.against("rate", ("two", direction, "haproxy"), ("two", direction, "direct")),
            "×", 0.8)
    add("copy to, fake server", d.values("rate", "fake", "to", "direct"), "rows/s", 1_000_000)
    add("copy from, fake server", d.values("rate", "fake", "from", "direct"), "rows/s", 500_000)
    peaks = [r["client_mib"] for r in d.rows if r["client_mib"] is not None]
    add("memory, the highest of all runs", [max(peaks)] if peaks else [], "MiB", 64, False)
    return table(["target", "limit", "measured: median (smallest–largest)"], rows)


def cells(d, cluster, direction, ways, base="direct"):
    rows = []
    for way in ways:
        where = (cluster, direction, way)
        if not d.values("rate", *where):
            continue
        share = [100 * v for v in d.values("server_share", *where)]
        rows.append([WAYS[way], spread(d.values("rate", *where)), "" if way == base else spread(d.against("rate", where, (cluster, direction, base))),
                     *(spread(d.values(k, *where)) for k in ("seconds", "client_cpu", "server_cpu")), spread(share),
                     spread(d.values("proxy_cpu", *where)), spread(d.values("client_mib", *where))])
    return table([f"COPY {direction.upper()}", "rows/s", "× direct", "seconds", "client CPU s", "server CPU s", "server's share %", "HAProxy CPU s",
                  "client MiB"], rows)


def answer(d):
    """The document's first open question."""
    rows = []
    for n in (1, 2, 4, 8):
        row = [str(n)]
        for direction in ("from", "to"):
            where, one = ("one", direction, "haproxy", n), ("one", direction, "haproxy", 1)
            row += [spread(d.values("rate", *where)), "" if n == 1 else spread(d.against("rate", where, one)),
                    spread([100 * v for v in d.values("server_share", *where)])]
        rows.append(row)
    return table(["NUMPROCESSES", "FROM rows/s", "× 1 thread", "server's share %", "TO rows/s", "× 1 thread", "server's share %"], rows)


def fallback_tables(d):
    """Direct, proxy, auto with fallback: what the document asks for."""
    lines = ["Each row lies on one of the two nodes.", ""]
    for direction in ("from", "to"):
        lines += [*cells(d, "two", direction, ("direct", "proxy", "haproxy", "refused", "dropped")), ""]
    return lines


def page(d):
    run, m = d.run, d.run["machine"]
    lines = ["# Benchmarks of COPY", "", f"Made by `BENCH=copy make bench` on {run['date']}, {run['rounds']} rounds, {run['took_s'] / 60:.1f} minutes in "
             "all. Not edited by hand.", "", "## Targets", "", *target_lines(d), "", "## One node", ""]
    for direction in ("from", "to"):
        lines += [*cells(d, "one", direction, ("cqlsh", "direct", "proxy", "haproxy")), ""]
    lines += ["## Direct, proxy, auto with fallback: two nodes", "", *fallback_tables(d)]
    lines += ["## NUMPROCESSES through one address", "", "One node behind HAProxy, proxy mode: is one process enough there, as the document asks?", "",
              *answer(d), "", "## Fake server", ""]
    for direction in ("from", "to"):
        where = ("fake", direction, "direct")
        lines += [f"- copy {direction}: {spread(d.values('rate', *where))} rows/s, {spread(d.values('client_cpu', *where))} s of client CPU, "
                  f"{spread(d.values('client_mib', *where))} MiB"]
    lines += ["", NOTES.format(rows=run["rows"], mib=run["bytes"] / 2**20, cpus=m["cpus"], timeout=run["timeout"], files=run["files"]), "",
              "## Machine", "", f"{m['cpu']}, {m['cpus']} CPUs{' (virtual)' if m['virtual'] else ''}, {m['memory_gib']} GiB, Linux {m['kernel']}; load "
              f"before the run {m['load']:.1f}; version {m['commit'] or 'unknown'}."]
    if run["absent"]:
        lines += ["", "## Not measured", "", *(f"- {what}: {why}" for what, why in run["absent"].items())]
    return "\n".join(lines) + "\n"


def write(out):
    out = pathlib.Path(out)
    (out / "benchmarks-copy.md").write_text(page(Results(out)))


def write_part(out, docs):
    """The document's table, into docs/benchmarks.md."""
    d = Results(out)
    copy_part(docs, ["## COPY: direct, proxy, auto with fallback", "", f"Made by `BENCH=copy make bench` on {d.run['date']}; all of it: "
                     "[benchmarks-copy.md](benchmarks-copy.md).", "", *fallback_tables(d)])
