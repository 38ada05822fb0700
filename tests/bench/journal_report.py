# SPDX-License-Identifier: Apache-2.0
"""Makes benchmarks-journal.md of journal.json; never invents a figure. What journal.py measured is described there.

Costs are differences to the agent with its journal in memory, taken within a round, where both met the same machine; the
median of the rounds is printed, with the smallest and largest beside it, and a target is judged on that median."""
import json
import pathlib

from report import median, number, spread, table

GROUP = 128
MIB = 1 << 20

NOTES = """## How

- Fake origin and target (`fakecql`), `cqlload` as client, protocol v4, prepared INSERTs; one worker in each agent, whose state
  is on {disk}. All agents are up at the same time and are measured in turn in each round.
- *cost*: with 1 connection client and agent share CPU 0, the servers are on CPU 1; with 16 nothing is pinned. CPU is the
  agent's process clock until the target has every write of the slice, divided by the writes.
- *commit*: what the disk allows is {group} connections, each of which waits for one fdatasync (`fsyncrate`: a write of the size
  of {group} records, fdatasync, again; the faster of a file written over and a growing one) and for the time that one write takes
  without: {group} / (1 / fdatasync rate + p50 with `none`, 1 connection), and never more than the same agent reaches with
  `none`.
- *drain*: the target is stopped (SIGSTOP), {fill:,} writes of 100 B fill the journal, the target goes on; the rate at which it
  gets them over the rate at which they came in.
- *recovery*: filled the same way, then SIGKILL and a new start; bytes and seconds as the agent counts them
  (`cqlferry_journal_recovered_bytes_total`, `cqlferry_journal_recovery_microseconds`). It counts only if all of the writes reached
  the target afterwards.
- *space*: `cqlferry_journal_written_bytes_total` for each mirrored write over `cqlferry_client_bytes_total` for each request:
  what is written in all, intent and outcome, against the frame as the client sent it."""


class Results:
    def __init__(self, out):
        data = json.loads((out / "journal.json").read_text())
        self.run, self.rows = data["run"], data["rows"]

    def by_round(self, key, what, sync, **where):
        return {r["round"]: r[key] for r in self.rows if r["what"] == what and r["sync"] == sync and r[key] is not None
                and all(r[k] == v for k, v in where.items())}

    def values(self, key, what, sync, **where):
        return list(self.by_round(key, what, sync, **where).values())

    def added(self, key, sync, **where):
        one, memory = (self.by_round(key, "cost", s, **where) for s in (sync, "memory"))
        return [one[n] - memory[n] for n in one if n in memory]

    def allowed(self):
        """Writes a second at GROUP connections that fdatasync leaves possible, for each round."""
        alone = median(self.values("p50_us", "cost", "none", connections=1))
        rate, without = self.by_round("per_s", "fdatasync", None), self.by_round("ops_per_s", "group", "none")
        return {n: min(GROUP / (1 / rate[n] + alone / 1e6), without[n]) for n in rate if n in without and alone}

    def reached(self):
        commit, allowed = self.by_round("ops_per_s", "group", "commit"), self.allowed()
        return [commit[n] / allowed[n] for n in commit if n in allowed]

    def drain(self, sync):
        fill, drain = (self.by_round(k, "drain", sync) for k in ("fill_per_s", "drain_per_s"))
        return [drain[n] / fill[n] for n in drain]

    def recovered(self, size):
        return [r["recovered"] / r["seconds"] / MIB for r in self.rows if r["what"] == "recovery" and r["bytes"] == size]

    def space(self, size):
        return [r["journal_bytes"] / r["request_bytes"] for r in self.rows if r["what"] == "space" and r["bytes"] == size]


def target_lines(d):
    """The figures that were asked for, each with what was measured."""
    rows = []

    def add(text, values, unit, limit, at_least=False):
        value = median(values)
        if value is None:
            rows.append([text, f"{'≥' if at_least else '≤'} {number(limit)} {unit}", "not measured"])
            return
        good = value >= limit if at_least else value <= limit
        rows.append([text, f"{'≥' if at_least else '≤'} {number(limit)} {unit}",
                     f"{spread(values)} {unit}, " + ("reached" if good else "**not reached**")])

    for c, name in ((1, "1 connection"), (16, "16 connections")):
        add(f"CPU that `interval` adds to a mirrored write, {name}", d.added("cpu_us", "interval", connections=c, bytes=100), "µs", 5)
    add("p50 that it adds, 1 connection", d.added("p50_us", "interval", connections=1, bytes=100), "µs", 10)
    add(f"`commit` at {GROUP} connections, of what the disk's fdatasync allows", d.reached(), "×", 0.8, True)
    for size, name in ((100, "100 B"), (10240, "10 KB")):
        add(f"recovery, {name}", d.recovered(size), "MiB/s", 500, True)
    add("draining over filling, `interval`", d.drain("interval"), "×", 2, True)
    for size, name in ((100, "100 B"), (10240, "10 KB")):
        add(f"journal bytes over request bytes, {name}", d.space(size), "×", 1.2)
    return table(["target", "limit", "measured: median (smallest–largest)"], rows)


def page(d):
    run, m = d.run, d.run["machine"]
    lines = ["# Benchmarks of the journal", "", f"Made by `BENCH=journal make bench` on {run['date']}, {run['rounds']} rounds of "
             f"{run['seconds']:g} s a slice, {run['took_s'] / 60:.1f} minutes in all. Not edited by hand.", "", "## Targets", "",
             *target_lines(d), "", "## Cost of a mirrored write", ""]
    rows = []
    for connections, size in ((1, 100), (16, 100), (16, 10240)):
        for sync in ("memory", "none", "interval", "commit"):
            where = {"connections": connections, "bytes": size}
            if d.values("p50_us", "cost", sync, **where):
                rows.append([f"{sync}, {connections} × {size} B", *(spread(d.values(k, "cost", sync, **where)) for k in
                                                                  ("p50_us", "p99_us", "ops_per_s", "cpu_us"))])
    lines += table(["journal.sync, connections × value", "p50 µs", "p99 µs", "write/s", "CPU µs/write"], rows)
    lines += ["", "## Space, `interval`", "",
              *table(["value", "journal, bytes for each write", "request, bytes", "journal over request"],
                     [[f"{size} B", *(spread(d.values(k, "space", "interval", bytes=size)) for k in ("journal_bytes", "request_bytes")),
                       spread(d.space(size))] for size in (100, 10240) if d.space(size)])]
    lines += ["", f"## Group commit, {GROUP} connections", "",
              *table(["", "a second"], [
                  ["fdatasync, a write of a whole group each", spread(d.values("per_s", "fdatasync", None))],
                  ["writes that it allows", spread(d.allowed().values())],
                  ["writes with `commit`", spread(d.values("ops_per_s", "group", "commit"))],
                  ["writes with `none`", spread(d.values("ops_per_s", "group", "none"))]]),
              "", "## Drain", "",
              *table(["journal.sync", "fill, write/s", "drain, write/s", "drain over fill"],
                     [[s, spread(d.values("fill_per_s", "drain", s)), spread(d.values("drain_per_s", "drain", s)), spread(d.drain(s))]
                      for s in ("memory", "interval") if d.drain(s)]),
              "", "## Recovery, `interval`", "",
              *table(["value", "journal MiB", "seconds", "MiB/s", "from start to the first 200 writes, s"],
                     [[f"{size} B", spread(v / MIB for v in d.values("recovered", "recovery", "interval", bytes=size)),
                       *(spread(d.values(k, "recovery", "interval", bytes=size)) for k in ("seconds",)), spread(d.recovered(size)),
                       spread(d.values("start_seconds", "recovery", "interval", bytes=size))]
                      for size in (100, 10240) if d.recovered(size)]),
              "", NOTES.format(disk=run["disk"], fill=run["fill"], group=GROUP), "", "## Machine", "",
              f"{m['cpu']}, {m['cpus']} CPUs{' (virtual)' if m['virtual'] else ''}, {m['memory_gib']} GiB, Linux {m['kernel']}; load "
              f"before the run {m['load']:.1f}; version {m['commit'] or 'unknown'}."]
    if run["absent"]:
        lines += ["", "## Not measured", "", *(f"- {what}: {why}" for what, why in run["absent"].items())]
    return "\n".join(lines) + "\n"


def write(out):
    out = pathlib.Path(out)
    (out / "benchmarks-journal.md").write_text(page(Results(out)))
