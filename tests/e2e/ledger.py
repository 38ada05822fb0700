# SPDX-License-Identifier: Apache-2.0
"""Whether the gap ledger accounts for what is missing on the target."""


def covers(gap, table, written, slack_us):
    keyspace, name = table.split(".")
    return (gap["kind"] == "unmirrored" and gap["cause"] == "shed" and gap["keyspace"] in (None, keyspace)
            and gap["table"] in (None, name)
            and gap["from"] - slack_us <= written <= (gap["to"] or float("inf")) + slack_us)


def unexplained(origin, target, gaps, slack_us=1_000_000):
    """origin, target: rows as compare.Side reads them, of rows that were each written once and whole. The differences that
    no shed gap with its time, table and number accounts for, as texts; slack_us: how far clocks may be apart."""
    out, missing = [], []
    for at in sorted(origin.keys() | target.keys(), key=str):
        one, two = origin.get(at), target.get(at)
        if one is not None and two is None:
            written = [w for _, w, _ in one.values() if w is not None]
            if written:  # else the empty static columns of a partition
                missing.append((max(written), at))
        elif one != two:
            out.append(f"{at[0]}{list(at[1])}: origin {one}, target {two}")
    # Both in the order of time: then taking the first gap that has room left is never the wrong choice.
    gaps = sorted(gaps, key=lambda g: g["to"] or float("inf"))
    room = [g["count"] for g in gaps]
    for written, at in sorted(missing, key=lambda m: m[0]):
        for i, gap in enumerate(gaps):
            if room[i] and covers(gap, at[0], written, slack_us):
                room[i] -= 1
                break
        else:
            out.append(f"{at[0]}{list(at[1])}, written at {written}, is on the origin only and not on the ledger")
    return out
