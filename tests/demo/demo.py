# SPDX-License-Identifier: Apache-2.0
"""demo.py: what demo.sh runs inside the lab. It tells what it does, and the last line says how it ended."""
import os
import sys
import time

import compare
import lab
import workload

KEYSPACE = "shop"
BEGAN = time.time()


def say(text):
    print(f"demo: [{time.time() - BEGAN:5.1f} s] {text}", flush=True)


class Story:
    def __init__(self):
        self.loads = []
        self.mode_file = os.path.join(lab.RUN, "mode")

    def mode(self, name):
        """Tells the applications what to write, as a deployment would not need to: see workload.py."""
        with open(self.mode_file + ".new", "w", encoding="utf-8") as f:
            f.write(name)
        os.replace(self.mode_file + ".new", self.mode_file)
        if self.loads:
            lab.wait_until(lambda: all(x.stat().get("modes") == [name] for x in self.loads), 30,
                           lambda: f"all writers in mode {name}: {[x.stat() for x in self.loads]}")

    def write_on(self, seconds, at_least=20):
        end = time.time() + seconds
        for x in self.loads:
            x.wait_running(at_least)
        time.sleep(max(0.0, end - time.time()))

    def acknowledged(self):
        return sum(x.stat()["acknowledged"] for x in self.loads)

    def errors(self):
        return sum(x.stat()["errors"] for x in self.loads)

    def start_clusters(self):
        self.origin, self.target = lab.Cassandra("origin", 1), lab.Cassandra("target", 2)
        self.origin.start()
        self.target.start()
        self.origin.wait()
        self.target.wait()
        for c in (self.origin, self.target):
            c.run(*workload.schema(KEYSPACE))
        say(f"two clusters: origin {self.origin.address}, target {self.target.address}; "
            f"keyspaces {KEYSPACE} and {workload.second_keyspace(KEYSPACE)} are empty on both")

    def start_applications(self):
        self.mode("beat")
        pods = [lab.Pod(f"pod{i}", f"10.77.0.{10 + i}") for i in (1, 2, 3)]
        more = {"mode_file": self.mode_file}
        self.loads = [
            lab.Load(pods[0], self.origin.address, KEYSPACE, "driver5", protocol=5, writers=6, rate=12, **more),
            lab.Load(pods[1], self.origin.address, KEYSPACE, "driver4", protocol=4, compression="any", writers=6, rate=12, **more),
            lab.Load(pods[2], self.origin.address, KEYSPACE, "cqlsh", program="cqlsh_writer.py", rate=5, **more),
        ]
        for x in self.loads:
            x.wait_running(20)
        say(f"pod1 and pod2 (Python driver, v5 and v4 with lz4) and pod3 (cqlsh) write to {self.origin.address}; no agent yet. "
            "So far they rewrite a few rows of theirs, as nothing is copied for them")

    def connected(self):
        """Sessions at the agent; from mirror on connections older than it are closed, and the drivers come back through it."""
        m = self.agent.metrics()
        return int(m.get("cqlferry_sessions", 0))

    def hold(self):
        return self.agent.metric("cqlferry_hold_last_microseconds") / 1000

    def play(self):
        say("starting Cassandra (the first start on a machine takes longer)")
        self.start_clusters()
        self.start_applications()

        self.agent = lab.Agent(self.origin, self.target)
        self.agent.start()
        self.write_on(2)
        say(f"the agent runs, phase observe: it touches nothing ({self.connected()} sessions through it), "
            f"{self.errors()} client errors so far")

        self.agent.phase("mirror")
        lab.wait_until(lambda: self.carried(), 60, lambda: "all connections through the agent: " + self.agent.cli("status").stdout)
        say(f"phase mirror: {self.connected()} sessions are carried; older connections were closed and came back by themselves "
            f"({self.errors()} attempts failed meanwhile and were repeated)")
        self.mode("all")
        self.write_on(5)
        say(f"now they write everything: INSERT, UPDATE, DELETE, batches, prepared and not, with and without timestamps; "
            f"{self.acknowledged()} acknowledged")

        calm = self.errors()
        status = self.agent.stop()
        if status != 0:
            raise lab.LabError(f"the agent's exit status after SIGTERM is {status}")
        time.sleep(0.5)
        say("planned restart: the agent got SIGTERM, answered what was in flight and is gone; new connections are refused meanwhile")
        self.agent.start()
        self.write_on(4)
        say(f"it is back, in phase mirror by itself; {self.acknowledged()} acknowledged, {self.errors() - calm} refused "
            "attempts that the applications repeated")

        calm = self.errors()
        self.agent.phase("cutover")
        say(f"cutover: the target answers now, requests were held for {self.hold():.0f} ms")
        self.write_on(5)
        self.agent.phase("rollback")
        say(f"rollback: the origin answers again, held for {self.hold():.0f} ms; {self.acknowledged()} acknowledged")
        self.write_on(4)
        self.agent.phase("cutover")
        say(f"second cutover: held for {self.hold():.0f} ms")
        self.write_on(4)
        say(f"{self.errors() - calm} client errors over two cutovers and a rollback, on connections that stayed open")

        self.mode("later")
        lab.wait_until(lambda: self.agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
        self.agent.phase("finish")
        self.write_on(3)
        say("finish: the target alone, nothing is mirrored back any more; what is written from here on goes to a table of its own")
        stats = [x.stop() for x in self.loads]
        self.agent.stop()
        return self.judge(stats)

    def carried(self):
        """No client but ours on the origin any more: what the cutover asks as well."""
        side = compare.Side("origin", self.origin.address)
        try:
            rows = side.session.execute("SELECT address FROM system_views.clients")
            past = any(str(r[0]).startswith("10.77.0.1") and str(r[0]) != lab.NODE_IP for r in rows)
            return not past and self.connected() >= 10  # 2 sessions and 2 control connections each, and cqlsh's two
        finally:
            side.close()

    def judge(self, stats):
        sides = [compare.Side("origin", self.origin.address), compare.Side("target", self.target.address)]
        names = [KEYSPACE, workload.second_keyspace(KEYSPACE)]
        result = compare.settle(*sides, names, [x.record for x in self.loads], 15, target_only=("later",))
        for s in sides:
            s.close()
        for note in result.notes:
            say("DIFFERENCE " + note)
        unanswered = sum(s["unanswered"] for s in stats)
        say(f"compared row by row with WRITETIME and TTL: {result.rows} rows, {result.ttl} with another expiry, "
            f"{unanswered} writes without an answer")
        # Cells that expire at different times are as good as lost; a demo that compared nothing has shown nothing.
        lost = result.lost + result.ttl
        acknowledged = sum(s["acknowledged"] for s in stats)
        pause = max(s["longest_ms"] for s in stats)
        print(f"demo: {acknowledged} acknowledged, {lost} lost, {result.duplicated} duplicated, longest pause {pause:.0f} ms", flush=True)
        return lost == 0 and result.duplicated == 0 and result.rows > 0 and acknowledged > 500


def main():
    story = Story()
    good = False
    try:
        good = story.play()
    except (lab.LabError, OSError) as e:
        print(f"demo: FAILED after {time.time() - BEGAN:.0f} s: {e}", flush=True)
    if not good or os.environ.get("DEMO_KEEP"):
        for c in (getattr(story, "origin", None), getattr(story, "target", None)):
            if c:
                c.save_logs()
        print(f"demo: logs are in {lab.LOGS}", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
