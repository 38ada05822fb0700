# SPDX-License-Identifier: Apache-2.0
"""The judges judged: a comparison that cannot find a fault is worth nothing, so each kind of fault is planted here."""
import json

import compare
import ledger
import pytest
import samples
import workload

pytestmark = [pytest.mark.offline, pytest.mark.quick]


class Fake:
    def __init__(self, name, rows):
        self.name, self.rows = name, rows

    def read(self, keyspace):
        return {k: dict(v) for k, v in self.rows.items() if k[0].startswith(keyspace + ".")}


AT = ("ks.items", ("a",))
GOOD = {AT: {"v": ("x", 100, None), "n": (1, 100, None)}}


def judge(tmp_path, origin, target, changes=(("ks.items", ["a"], "I", {"v": "x", "n": 1}),), unanswered=()):
    record = tmp_path / "record"
    lines = [["a", 0, 0, 0, [c]] for c in changes] + [["?", 0, 0, 0, [c]] for c in unanswered]
    record.write_text("".join(json.dumps(x) + "\n" for x in lines))
    return compare.compare(Fake("origin", origin), Fake("target", target), ["ks"], [str(record)])


def test_equal_is_ok(tmp_path):
    r = judge(tmp_path, GOOD, GOOD)
    assert r.ok() and r.acknowledged == 1 and r.rows == 1


@pytest.mark.parametrize("name, row", [
    ("missing row", None),
    ("other value", {"v": ("y", 100, None), "n": (1, 100, None)}),
    ("missing cell", {"v": ("x", 100, None), "n": (None, None, None)}),
])
@pytest.mark.parametrize("side", ["origin", "target"])
def test_lost(tmp_path, name, row, side):
    bad = {AT: row} if row else {}
    r = judge(tmp_path, *((bad, GOOD) if side == "origin" else (GOOD, bad)))
    assert r.lost > 0, name


def test_lost_on_both_sides_is_found_by_the_record(tmp_path):
    assert judge(tmp_path, {}, {}).lost == 2


def test_lost_delete(tmp_path):
    changes = [("ks.items", ["a"], "I", {"v": "x"}), ("ks.items", ["a"], "D", {})]
    assert judge(tmp_path, GOOD, GOOD, changes).lost == 2
    assert judge(tmp_path, {}, {}, changes).ok()


def test_duplicated(tmp_path):
    later = {AT: {"v": ("x", 200, None), "n": (1, 100, None)}}
    assert judge(tmp_path, GOOD, later).duplicated == 1
    foreign = dict(GOOD)
    foreign[("ks.items", ("nobody's",))] = {"v": ("x", 1, None), "n": (1, 1, None)}
    assert judge(tmp_path, foreign, foreign).duplicated == 2


def test_ttl(tmp_path):
    one = {AT: {"v": ("x", 100, 1000.0), "n": (1, 100, None)}}
    two = {AT: {"v": ("x", 100, 1010.0), "n": (1, 100, None)}}
    assert judge(tmp_path, one, two).ttl == 1
    assert judge(tmp_path, one, one).ok()
    assert judge(tmp_path, one, GOOD).ttl == 1


def test_unanswered_writes_may_be_there_or_not_but_the_same_on_both(tmp_path):
    other = ("ks.items", ["b"], "I", {"v": "z"})
    more = dict(GOOD)
    more[("ks.items", ("b",))] = {"v": ("z", 5, None)}
    assert judge(tmp_path, GOOD, GOOD, unanswered=[other]).ok()
    assert judge(tmp_path, more, more, unanswered=[other]).ok()
    one_sided = judge(tmp_path, more, GOOD, unanswered=[other])
    assert one_sided.lost == one_sided.unanswered == 1


def test_a_plan_is_repeatable_and_uses_every_kind():
    one, two = workload.Plan("p", 3, "ks"), workload.Plan("p", 3, "ks")
    kinds = set()
    for _ in range(2000):
        a, b = one.next(), two.next()
        assert a == b
        kinds.add(a[0])
        assert all(workload.statement(c) and workload.prepared(c) for c in a[1])
    assert kinds == {k for k, _ in workload.Plan.KINDS}


def test_writers_share_no_row():
    seen = {}
    for writer in range(20):
        for prefix in ("pod1", "pod2", "cqlsh"):
            plan = workload.Plan(prefix, writer, "ks")
            for _ in range(50):
                for table, key, _, _ in plan.next()[1]:
                    at = (table, tuple(key[:1]))
                    assert seen.setdefault(at, (writer, prefix)) == (writer, prefix), at


def test_all_after_beat_covers_what_beat_wrote():
    plan = workload.Plan("p", 1, "ks")
    plan.mode = "beat"
    written = {}
    for _ in range(23):
        (_, key, _, columns), = plan.next()[1]
        written[tuple(key)] = columns["n"]
    assert len(written) == 5
    plan.mode, covered = "all", set()
    while plan.beats or not covered:
        (_, key, verb, _), = plan.next()[1]
        assert verb == "I"
        covered.add(tuple(key))
    assert covered == set(written)


def test_rows_for_the_target_alone(tmp_path):
    later = {("ks.later", ("a",)): {"v": ("x", 100, None)}}
    record = tmp_path / "record"
    record.write_text(json.dumps(["a", 0, 0, 0, [["ks.later", ["a"], "I", {"v": "x"}]]]) + "\n")
    one, two = Fake("origin", {}), Fake("target", later)
    assert not compare.compare(one, two, ["ks"], [str(record)]).ok()
    assert compare.compare(one, two, ["ks"], [str(record)], target_only=["later"]).ok()
    assert compare.compare(one, Fake("target", {}), ["ks"], [str(record)], target_only=["later"]).lost == 1


def test_an_unanswered_write_leaves_two_states_open_and_no_third(tmp_path):
    unanswered = [("ks.items", ["a"], "U", {"v": "y"}), ("ks.items", ["a"], "D", {})]
    for v, lost in (("x", 0), ("y", 0), ("z", 2)):
        both = {AT: {"v": (v, 100, None), "n": (1, 100, None)}}
        assert judge(tmp_path, both, both, unanswered=unanswered[:1]).lost == lost, v
    assert judge(tmp_path, {}, {}, unanswered=unanswered).ok()
    assert judge(tmp_path, {}, {}, unanswered=unanswered[:1]).lost == 2


def test_an_unanswered_static_column(tmp_path):
    event = ("ks.events", ["w", 1], "I", {"v": "x", "level": "high"})
    row = {("ks.events", ("w", 1)): {"v": ("x", 5, None)}}
    for level, ok in (("high", True), (None, True), ("low", False)):
        both = {**GOOD, **row, ("ks.events", ("w",)): {"level": (level, 5, None)}}
        assert judge(tmp_path, both, both, unanswered=[event]).ok() == ok, level
    assert judge(tmp_path, GOOD, GOOD, unanswered=[event]).ok()


def test_what_went_unanswered_is_left_alone():
    plan = workload.Plan("p", 1, "ks")
    forgotten = set()
    for step in range(2000):
        _, changes = plan.next()
        for table, key, _, _ in changes:
            assert (table, tuple(key)) not in forgotten
        if step % 10 == 0:
            plan.forget(changes)
            forgotten.update((t, tuple(k)) for t, k, _, _ in changes)


def test_percentile_of_a_histogram():
    before, after = {0.01: 5.0, 0.1: 5.0, float("inf"): 5.0}, {0.01: 55.0, 0.1: 105.0, float("inf"): 105.0}
    assert samples.percentile(before, after, 0.5) == (0.01, 100)
    assert samples.percentile(before, after, 0.75) == (0.055, 100)
    assert samples.percentile(after, after, 0.5) == (None, 0)


def test_longest_gap_between_acknowledgements(tmp_path):
    record = tmp_path / "record"
    times = [1000, 1100, 1900, 2000]  # when they were answered: 50 ms later
    record.write_text("".join(json.dumps(["a", 0, t, 50.0, []]) + "\n" for t in times) + json.dumps(["?", 0, 1500, 0, []]) + "\n")
    answered = samples.acknowledgements([str(record)], 0, 10)
    assert answered == [1.05, 1.15, 1.95, 2.05]
    assert samples.longest_gap(answered, 1.05, 2.05) == (0.8, 1.15)
    assert samples.longest_gap(answered, 1.05, 3.05) == (1.0, 2.05)
    # Another who asks the cluster was answered at 1.2 and 1.9: of the 0.8 s, 0.7 were the cluster's. Then all the time.
    assert samples.longest_gap(answered, 1.05, 2.05, [1.2, 1.9]) == (0.1, 1.15)
    assert samples.longest_gap(answered, 1.05, 2.05, [t / 100 for t in range(100, 210)]) == (0.79, 1.15)


def test_what_the_ledger_does_not_explain():
    row = {"v": ("x", 5_000_000, None)}
    origin = Fake("origin", {AT: row, ("ks.items", ("b",)): row})
    gap = {"kind": "unmirrored", "cause": "shed", "keyspace": "ks", "table": "items", "from": 4_900_000, "to": 5_100_000, "count": 2}
    one, two = origin.read("ks"), {}
    assert ledger.unexplained(one, two, [gap], slack_us=0) == []
    assert ledger.unexplained(one, two, [dict(gap, keyspace=None, table=None)], slack_us=0) == []
    for bad in ({"count": 1}, {"to": 4_950_000}, {"table": "other"}, {"cause": "lwt"}):
        assert ledger.unexplained(one, two, [dict(gap, **bad)], slack_us=0), bad
    assert ledger.unexplained(one, two, [], slack_us=0)
    assert ledger.unexplained({}, one, [gap], slack_us=0), "a row that only the target has is no gap"
    other = {AT: {"v": ("y", 5_000_000, None)}}
    assert ledger.unexplained({AT: row}, other, [gap], slack_us=0), "the sides differ in a cell that both have at one time"
