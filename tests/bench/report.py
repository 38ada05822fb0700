# SPDX-License-Identifier: Apache-2.0
"""Makes the page and the plot of a benchmark run from results.json and run.json; never invents a figure.

Differences and ratios to `direct` are taken within a round, where both met the same machine; the median of the
rounds is printed, with the smallest and largest beside it. A target is judged on that median.
"""
import json
import pathlib
import re
import shutil
import statistics
import subprocess

CASE = ("placement", "protocol", "operation", "bytes", "connections", "inflight")
ORDER = ["direct", "haproxy", "cqlferry-explicit", "cqlferry-mirror", "cqlferry", "cqlferry-skmsg", "zdm"]
PLACEMENTS = {"free": ", not pinned", "node": "", "one-cpu": ", all on one CPU"}
SIZES = {100: "100 B", 10240: "10 KB", 1048576: "1 MB", 67108864: "64 MiB"}


def case_name(r):
    size, plural = SIZES.get(r["bytes"], r["bytes"]), "s" * (r["connections"] != 1)
    text = f"v{r['protocol']}, {size}, {r['operation']}, {r['connections']} connection{plural}"
    if r["inflight"] != 1:
        text += f", {r['inflight']} in flight"
    if r.get("backend") == "cassandra" or r["connections"] * r["inflight"] > 1:
        return text  # never pinned
    return text + PLACEMENTS[r["placement"]]


class Results:
    def __init__(self, out):
        self.all = json.loads((out / "results.json").read_text())
        self.run = json.loads((out / "run.json").read_text())
        self.rows = [r for r in self.all if r["p50_us"] is not None]

    def cases(self, backend):
        seen = []
        for r in self.rows:
            c = tuple(r[k] for k in CASE)
            if r["backend"] == backend and c not in seen:
                seen.append(c)
        return seen

    def contestants(self, backend, c):
        seen = []
        for r in self.rows:
            if r["backend"] == backend and tuple(r[k] for k in CASE) == c and r["contestant"] not in seen:
                seen.append(r["contestant"])
        return sorted(seen, key=ORDER.index)

    def by_round(self, backend, c, contestant, key):
        return {r["round"]: r[key] for r in self.rows
                if r["backend"] == backend and tuple(r[k] for k in CASE) == c and r["contestant"] == contestant
                and r[key] is not None}

    def against(self, backend, c, contestant, key, how, other="direct"):
        """Values of `how(contestant, other)` for each round in which both were measured."""
        a, b = (self.by_round(backend, c, who, key) for who in (contestant, other))
        return [how(a[n], b[n]) for n in sorted(a) if n in b and b[n]]

    def memory(self, contestant, operation, connections):
        for r in self.all:
            found = (r["contestant"], r["operation"], r["connections"])
            if r["p50_us"] is None and found == (contestant, operation, connections):
                return r
        return None


def number(v):
    if v is None:
        return "–"
    return f"{v:,.0f}" if abs(v) >= 100 else f"{v:.1f}" if abs(v) >= 10 else f"{v:.2f}"


def spread(values):
    values = list(values)
    if not values:
        return "–"
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


NODE = ("node", 4, "read", 100, 1, 1)
FREE = ("free", 4, "read", 100, 1, 1)
ONE_CPU = ("one-cpu", 4, "read", 100, 1, 1)
WRITE = ("node", 4, "write", 100, 1, 1)
SIXTEEN = ("free", 4, "read", 100, 16, 1)
DEEP = ("free", 4, "read", 100, 1, 32)
BASE = {"fake": NODE, "cassandra": FREE}


def minus(a, b):
    return a - b


def over(a, b):
    return a / b


def targets(d):
    """The figures that were asked for: (text, contestant, value, unit, limit, is it reached)."""
    ferries = sorted({r["contestant"] for r in d.rows if r["contestant"].startswith("cqlferry")})
    out = []

    def add(text, who, value, unit, limit, at_least=False):
        if value is not None and limit is not None:
            out.append((text, who, value, unit, limit, value >= limit if at_least else value <= limit))

    for who in ferries:
        for c in (NODE, FREE, ONE_CPU):
            where = PLACEMENTS[c[0]]
            for key, name, limit in (("p50_us", "p50", 25), ("p99_us", "p99", None)):
                added, zdm = (median(d.against("fake", c, one, key, minus)) for one in (who, "zdm"))
                add(f"added {name}, fake server{where}", who, added, "µs", limit)
                third = zdm / 3 if zdm is not None else None
                add(f"added {name}{where}: a third of what zdm-proxy adds", who, added, "µs", third)
        add("added p50, Cassandra", who, median(d.against("cassandra", FREE, who, "p50_us", minus)), "µs", 40)
        for c in (NODE, FREE, ONE_CPU, SIXTEEN, DEEP):
            name = case_name(dict(zip(CASE, c))).removeprefix("v4, 100 B, read, ")
            cpu, zdm = (median(d.by_round("fake", c, one, "cpu_us_per_op").values()) for one in (who, "zdm"))
            add(f"CPU for each read, {name}", who, cpu, "µs", 12)
            if cpu and zdm:
                add(f"reads per CPU second, times zdm-proxy's, {name}", who, zdm / cpu, "×", 5, at_least=True)
        if who != "cqlferry-explicit":
            cpu = median(d.by_round("fake", WRITE, who, "cpu_us_per_op").values())
            add("CPU for each mirrored write", who, cpu, "µs", 25)
        add("throughput of direct, Cassandra, 16 connections", who,
            median(d.against("cassandra", SIXTEEN, who, "ops_per_s", over)), "×", 0.95, at_least=True)
        rest, many, large = (d.memory(who, "idle", 0), d.memory(who, "idle", 5000), d.memory(who, "read", 1))
        if rest:
            add("memory at rest", who, rest["rss_kib"] / 1024, "MiB", 32)
        if rest and many:
            add("memory for each idle connection", who, (many["rss_kib"] - rest["rss_kib"]) / 5000, "KiB", 16)
        if large:
            add("growth by a 64 MiB result", who, large["rss_growth_kib"] / 1024, "MiB", 1)
    return out


NOTES = """## Who

- `direct`: the client on the origin itself.
- `haproxy`: {haproxy}, mode tcp: a relay that looks at nothing.
- `cqlferry-explicit`: the agent on a port of its own, phase observe: it relays, nothing is mirrored.
- `cqlferry-mirror`: the agent as the proxy document starts it, by its variables alone: explicit port, every write goes to
  both clusters.
- `cqlferry`: the client's connect is led to the agent by eBPF, `acceleration: off`, phase mirror.
- `cqlferry-skmsg`: the same with `acceleration: on`.
- `zdm`: zdm-proxy, log level WARN, everything else as it comes. It sends writes to both clusters.

## How

- `cqlload` (closed loop, one thread, prepared statements, no client timestamps) takes the time from before the write to
  after the read that brought an answer's last byte. Reads check the length of the value; one error fails the run.
- On the fake server it is checked that each write of a mirroring contestant reached the target; its CPU is taken after that.
- The fake server is `fakecql`, one thread each for origin and target; it takes 2–4 µs of CPU for a small request.
- All contestants are up during the whole run and are measured one after the other in each round; the order turns.
- Each runs as it comes: threads, buffers. With one request at a time every hop is a wake-up, and on a virtual machine
  the waking of an idle CPU costs more than all the rest; whether it is needed would be the scheduler's whim. So on the
  fake server these cases pin client and contestant to CPU 0 and the servers to CPU 1 (an agent on the client's node, a
  server elsewhere), alike for all contestants. The base case is shown without pinning and with everything on one CPU as
  well (the work itself). Cases with more than one request in flight, and all with Cassandra, are not pinned.
- CPU of a contestant: its process's CPU clock over all threads, divided by the requests of the slice, warm-up and
  handshake included. The sending and receiving of a wake-up is in it; work that the kernel does in the client's or
  server's context is not.
- Cassandra: two one-node clusters on loopback addresses, JIT as it comes, warmed before the first round. The servers
  share the CPUs with client and contestant."""


def table(header, rows, left=1):
    """Lines of a Markdown table; the first `left` columns are text, the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join(["---"] * left + ["---:"] * (len(header) - left)) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def target_lines(d):
    """One row a target, one column a contestant, both in the order in which targets() names them."""
    rows, names = {}, []
    for text, who, value, unit, limit, good in targets(d):
        judged = f"{number(value)} {unit}, " + ("reached" if good else "**not reached**")
        rows.setdefault((text, f"{'≥' if unit == '×' else '≤'} {number(limit)} {unit}"), {})[who] = judged
        names += [who] if who not in names else []
    if not rows:
        return ["No cqlferry contestant took part in this run."]
    names.sort(key=ORDER.index)
    return ["v4, 100 B, 1 connection with 1 request in flight unless the line says otherwise; medians of the rounds.", "",
            *table(["target", "limit", *names],
                   [[text, limit, *(cells.get(who, "–") for who in names)] for (text, limit), cells in rows.items()])]


def cell_row(d, backend, c, who):
    keys = ("p50_us", "p99_us", "p999_us", "ops_per_s", "cpu_us_per_op", "rss_kib")
    p50, p99, p999, ops, cpu, rss = (list(d.by_round(backend, c, who, k).values()) for k in keys)
    if who == "direct":
        return [who, spread(p50), "", spread(p99), spread(p999), spread(ops), "", "", ""]
    return [who, spread(p50), spread(d.against(backend, c, who, "p50_us", minus)), spread(p99), spread(p999),
            spread(ops), spread(d.against(backend, c, who, "ops_per_s", over)), spread(cpu),
            number(median(rss) / 1024 if rss else None)]


def memory_lines(d):
    rows = []
    for who in sorted({r["contestant"] for r in d.all if r["operation"] == "idle"}, key=ORDER.index):
        rss = [(d.memory(who, "idle", n) or {}).get("rss_kib") for n in (0, 1000, 5000)]
        large = d.memory(who, "read", 1)
        rows.append([who] + [number(r / 1024 if r else None) for r in rss] + [
            number((rss[2] - rss[0]) / 5000 if rss[0] and rss[2] else None),
            number(large["rss_growth_kib"] / 1024 if large else None)])
    if not rows:
        return []
    return ["", "## Memory", "", "Resident memory of a freshly started process, MiB; the last column is the peak over what it "
            "had while three results of 64 MiB passed.", "",
            *table(["contestant", "at rest", "1,000 idle", "5,000 idle", "KiB for each idle connection",
                    "growth by a 64 MiB result"], rows)]


# What BENCH=copy puts into benchmarks.md; a later run of the rest leaves it there.
COPY = re.compile("<!-- copy -->.*<!-- /copy -->", re.S)


def copy_part(docs, tables=None):
    """That part of docs/benchmarks.md as it is; with `tables` (lines) it is replaced first."""
    path = pathlib.Path(docs) / "benchmarks.md"
    text = path.read_text() if path.exists() else ""
    if tables is not None and COPY.search(text):
        part = "\n".join(["<!-- copy -->", *tables, "<!-- /copy -->"])
        path.write_text(COPY.sub(lambda _: part, text))
        return part
    found = COPY.search(text)
    return found.group() if found else "<!-- copy -->\n<!-- /copy -->"


def page(d, docs):
    run, m = d.run, d.run["machine"]
    lines = ["# Benchmarks", "", f"Made by `make bench` (`BENCH={run['mode']}`) on {run['date']}, {run['rounds']} rounds of "
             f"{run['seconds']:g} s a cell, {run['took_s'] / 60:.0f} minutes in all. Not edited by hand.", "",
             "The journal: [benchmarks-journal.md](benchmarks-journal.md). COPY: [benchmarks-copy.md](benchmarks-copy.md).", ""]
    if run["mode"] != "full":
        lines += ["From a shortened run: the slices are short, small differences are noise.", ""]
    lines += ["![p50 and CPU of each contestant](benchmarks.svg)", "", "## Targets", "", *target_lines(d)]
    header = ["contestant", "p50 µs", "added p50 µs", "p99 µs", "p99.9 µs", "op/s", "× direct", "CPU µs/op", "RSS MiB"]
    for backend, title in (("fake", "Fake server"), ("cassandra", "Cassandra")):
        if d.cases(backend):
            lines += ["", f"## {title}", "",
                      "Median of the rounds (smallest–largest). *added* and *× direct* are taken within each round."]
        for c in d.cases(backend):
            lines += ["", f"### {case_name(dict(zip(CASE, c), backend=backend))}", "",
                      *table(header, [cell_row(d, backend, c, who) for who in d.contestants(backend, c)])]
    virtual = " (virtual)" if m["virtual"] else ""
    lines += memory_lines(d)
    lines += ["", NOTES.format(haproxy=m["haproxy"] or "HAProxy"), "", "## Machine", "",
              f"{m['cpu']}, {m['cpus']} CPUs{virtual}, {m['memory_gib']} GiB, Linux {m['kernel']}; load before the run "
              f"{m['load']:.1f}; version {m['commit'] or 'unknown'}."]
    lines += ["", copy_part(docs)]
    if run["absent"]:
        lines += ["", "## Did not take part", ""]
        lines += [f"- {who} ({where}): {why}" for who, places in run["absent"].items() for where, why in places.items()]
    return "\n".join(lines) + "\n"


PLOT = """set terminal svg size 1000,{height} font 'sans,13' background '#ffffff'
set output '{out}/benchmarks.svg'
set multiplot layout {rows},2
set style fill solid 0.75 border -1
set boxwidth 0.65
set yrange [0:*]
set grid ytics lc rgb '#dddddd'
set xtics rotate by -25 scale 0
unset key
"""


def plot(d, out):
    """Bars for the base case: p50 with its spread, and CPU for each request; one row for each backend."""
    backends = [b for b in ("fake", "cassandra") if BASE[b] in d.cases(b)]
    if not backends or not shutil.which("gnuplot"):
        return
    text = PLOT.format(out=out, rows=len(backends), height=420 * len(backends))
    for b in backends:
        for key, title in (("p50_us", "p50, µs"), ("cpu_us_per_op", "CPU of the contestant for each request, µs")):
            rows = []
            for who in d.contestants(b, BASE[b]):
                v = list(d.by_round(b, BASE[b], who, key).values())
                if v:
                    rows.append(f'{len(rows)} "{who}" {statistics.median(v)} {min(v)} {max(v)}')
            if not rows:  # no proxy took part: an empty panel
                text += "set multiplot next\n"
                continue
            name = f"plot_{b}_{key}"
            text += f"${name} << EOD\n" + "\n".join(rows) + "\nEOD\n"
            text += f"set title '{ {'fake': 'Fake server', 'cassandra': 'Cassandra'}[b]}: {title}'\n"
            colour = "#3b6ea5" if key == "p50_us" else "#b5651d"
            text += (f"plot ${name} using 1:3:xtic(2) with boxes lc rgb '{colour}', "
                     f"${name} using 1:3:4:5 with yerrorbars lc rgb '#222222' lw 1.5 ps 0\n")
    subprocess.run(["gnuplot"], input=text, text=True, check=True)


def write(out, docs):
    """`docs`: the directory whose benchmarks.md says what was measured of COPY."""
    out = pathlib.Path(out)
    d = Results(out)
    (out / "benchmarks.md").write_text(page(d, docs))
    plot(d, out)


if __name__ == "__main__":
    import sys
    write(sys.argv[1], pathlib.Path(__file__).resolve().parents[2] / "docs")
