#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compare.py: both clusters row by row, with WRITETIME and TTL, and against the record of what was acknowledged.

It connects straight to both clusters. Reported for the given keyspaces:
  lost        acknowledged values that are missing or different on a side, and rows that one side alone has lost; those of
              rows with an unanswered write are named apart
  duplicated  rows or cells that no acknowledged write explains, or that the two sides hold under different timestamps
  ttl         cells whose expiry differs by more than the slack (reported; counted as lost)
Exit status 1 unless all are 0.
"""
import argparse
import json
import os
import sys
import time

from cassandra import InvalidRequest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy, WhiteListRoundRobinPolicy
from cassandra.query import SimpleStatement, tuple_factory

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import workload  # noqa: E402


class Side:
    """One cluster, read whole: rows[(table, key)] = {column: (value, writetime, expiry)}."""

    def __init__(self, name, contact, user="cassandra", password="cassandra", port=9042, alone=False, metadata=True):
        """alone: no other node than the contact is asked. metadata: the driver reads the schema, at first and after each change of it."""
        self.name = name
        auth = PlainTextAuthProvider(user, password) if user else None
        policy = WhiteListRoundRobinPolicy(contact.split(",")) if alone else RoundRobinPolicy()
        profile = ExecutionProfile(load_balancing_policy=policy, request_timeout=60, row_factory=tuple_factory)
        self.cluster = Cluster(contact.split(","), port=port, auth_provider=auth, protocol_version=5, schema_metadata_enabled=metadata and not alone,
                               execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=20, control_connection_timeout=20)
        self.session = self.cluster.connect()

    def close(self):
        self.cluster.shutdown()

    def tables(self, keyspace):
        out = {}
        for table, column, kind, position, ctype in self.session.execute(
                "SELECT table_name, column_name, kind, position, type FROM system_schema.columns WHERE keyspace_name = %s",
                (keyspace,)):
            out.setdefault(table, []).append((kind, position, column, ctype))
        return out

    def read(self, keyspace):
        rows = {}
        for table, columns in self.tables(keyspace).items():
            key = [c for k, _, c, _ in sorted(columns, key=lambda x: (x[0] != "partition_key", x[1])) if k in
                   ("partition_key", "clustering")]
            partition = sum(1 for k, *_ in columns if k == "partition_key")
            select, cells = [f'"{c}"' for c in key], []
            for kind, _, column, ctype in columns:
                if kind in ("partition_key", "clustering"):
                    continue
                # Elements of a collection have timestamps of their own, which CQL before 5.0 does not show; a counter none.
                plain = not ctype.startswith(("set<", "map<", "list<")) and ctype != "counter"
                select.append(f'"{column}"')
                if plain:
                    select += [f'WRITETIME("{column}")', f'TTL("{column}")']
                cells.append((column, plain, kind == "static", ctype.startswith("list<")))
            statement = SimpleStatement(f'SELECT {", ".join(select)} FROM "{keyspace}"."{table}"', fetch_size=2000)
            full = f"{keyspace}.{table}"
            for values in self.session.execute(statement):
                now = int(time.time())  # a TTL is what is left until a whole second
                k, i, row = tuple(values[: len(key)]), len(key), {}
                for column, plain, static, ordered in cells:
                    value, written, expiry = values[i], None, None
                    i += 1
                    if plain:
                        written, ttl = values[i], values[i + 1]
                        expiry = now + ttl if ttl is not None else None
                        i += 2
                    elif isinstance(value, int):
                        pass  # a counter
                    elif value is not None:
                        value = dict(value) if hasattr(value, "items") else list(value) if ordered else sorted(value)
                    if static:
                        rows.setdefault((full, k[:partition]), {})[column] = (value, written, expiry)
                    else:
                        row[column] = (value, written, expiry)
                rows[(full, k)] = row
        return rows


def load_records(paths):
    """One Expected for all records. A writer's lines are in its own order; writers share no rows."""
    expected = workload.Expected()
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                what, _, _, _, changes = json.loads(line)
                if what == "a":
                    expected.apply(changes)
                else:
                    expected.doubt(changes)
    return expected


class Result:
    def __init__(self):
        self.acknowledged = self.rows = self.lost = self.unanswered = self.duplicated = self.ttl = 0
        self.notes = []

    def note(self, text):
        if len(self.notes) < 25:
            self.notes.append(text)

    def ok(self):
        return self.lost == 0 and self.duplicated == 0 and self.ttl == 0

    def text(self):
        return (f"{self.rows} rows compared, {self.acknowledged} acknowledged, "
                f"{self.lost} lost ({self.unanswered} of them unanswered), "
                f"{self.duplicated} duplicated, {self.ttl} with another TTL")


def show(at):
    return f"{at[0]}{list(at[1])}"


def compare_sides(a, b, rows_a, rows_b, result, slack, doubtful=frozenset()):
    for at in sorted(rows_a.keys() | rows_b.keys(), key=lambda at: (at in doubtful, str(at))):
        one, two = rows_a.get(at), rows_b.get(at)
        unanswered, before = " (an unanswered write)" if at in doubtful else "", result.lost
        result.rows += 1
        if one is None or two is None:
            there, gone = (a, b) if two is None else (b, a)
            result.lost += 1
            result.note(f"only on the {there.name}, not on the {gone.name}: {show(at)}{unanswered}")
            one = two = {}
        for column in sorted(one.keys() | two.keys()):
            (v1, w1, e1), (v2, w2, e2) = one.get(column, (None,) * 3), two.get(column, (None,) * 3)
            if v1 != v2:
                result.lost += 1
                result.note(f"{show(at)} {column}: {a.name} {v1!r:.60} at {w1}, {b.name} {v2!r:.60} at {w2}{unanswered}")
            elif w1 != w2:
                result.duplicated += 1
                result.note(f"{show(at)} {column}: the same value under two timestamps, {a.name} {w1}, {b.name} {w2}")
            elif (e1 is None) != (e2 is None) or (e1 is not None and abs(e1 - e2) > slack):
                result.ttl += 1
                result.note(f"{show(at)} {column}: expires on the {a.name} at {e1}, on the {b.name} at {e2}")
        if unanswered:
            result.unanswered += result.lost - before


def is_in(have, want):
    """Whether a row that was read is in the wanted state; cells that the state does not name may hold anything."""
    if want is None:
        return have is None
    return have is not None and all(have.get(c, (None,))[0] == v for c, v in want.items())


def compare_expected(side, rows, expected, result, keyspaces, except_tables=()):
    def in_scope(at):
        return at[0].split(".")[0] in keyspaces and at[0] not in except_tables

    for at, states in {**expected.rows, **expected.statics}.items():
        have, want = rows.get(at, {} if at in expected.statics else None), states[0]
        if not in_scope(at) or any(is_in(have, s) for s in states):
            continue
        if len(states) > 1:
            result.lost += 1
            result.unanswered += 1
            result.note(f"{side.name}: {show(at)} is in none of the {len(states)} states that unanswered writes leave open")
        elif want is None:
            result.lost += 1
            result.note(f"{side.name}: an acknowledged DELETE is missing: {show(at)}")
        elif have is None:
            result.lost += 1
            result.note(f"{side.name}: an acknowledged row is missing: {show(at)}")
        else:
            for column, value in want.items():
                if have.get(column, (None,))[0] != value:
                    result.lost += 1
                    result.note(f"{side.name}: {show(at)} {column} is {have.get(column, (None,))[0]!r:.60}, "
                                f"acknowledged was {value!r:.60}")
    for at in rows:
        if in_scope(at) and at not in expected.rows and at not in expected.statics:
            if all(cell[0] is None for cell in rows[at].values()):
                continue  # statics of a partition of which only rows were written
            result.duplicated += 1
            result.note(f"{side.name}: a row that nobody wrote: {show(at)}")


def compare(origin, target, keyspaces, records=(), slack=2.5, target_only=()):
    """origin and target: Side. The record of several writers is one state, since no two of them share a row.
    Tables of target_only (bare names) are judged on the target alone: what was written after the end of the mirror."""
    result = Result()
    expected = load_records(records)
    result.acknowledged = expected.acknowledged
    for keyspace in keyspaces:
        one, two = origin.read(keyspace), target.read(keyspace)
        alone = {f"{keyspace}.{t}" for t in target_only}
        compare_sides(origin, target, {k: v for k, v in one.items() if k[0] not in alone},
                      {k: v for k, v in two.items() if k[0] not in alone}, result, slack, expected.doubtful)
        if records:
            compare_expected(origin, one, expected, result, [keyspace], alone)
            compare_expected(target, two, expected, result, [keyspace])
    return result


def settle(origin, target, keyspaces, records=(), seconds=15, target_only=(), slack=2.5):
    """As compare, again until both are equal or the time is over: the mirror is asynchronous. So is the schema of a cluster's nodes: one may
    still name a table that the next one, which is asked for its rows, has dropped."""
    end = time.time() + seconds
    while True:
        try:
            result = compare(origin, target, keyspaces, records, slack, target_only)
            if result.ok() or time.time() > end:
                return result
        except InvalidRequest as e:
            if time.time() > end:
                raise
            print("compare, again:", e)
        time.sleep(0.5)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--origin", required=True)
    p.add_argument("--target", required=True)
    p.add_argument("--user", default="cassandra")
    p.add_argument("--password", default="cassandra")
    p.add_argument("--keyspace", required=True, help="separated by commas")
    p.add_argument("--settle", type=float, default=0, help="seconds to wait for the mirror")
    p.add_argument("record", nargs="*")
    args = p.parse_args()
    origin = Side("origin", args.origin, args.user, args.password)
    target = Side("target", args.target, args.user, args.password)
    result = settle(origin, target, args.keyspace.split(","), args.record, args.settle)
    for n in result.notes:
        print("compare:", n)
    print("compare:", result.text())
    origin.close()
    target.close()
    sys.exit(0 if result.ok() else 1)


if __name__ == "__main__":
    main()
