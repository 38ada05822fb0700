# SPDX-License-Identifier: Apache-2.0
"""The judges judged: a comparison that cannot find a fault is worth nothing, so each kind of fault is planted here."""
import json

import compare
import pytest
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
    assert judge(tmp_path, more, GOOD, unanswered=[other]).lost == 1


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
