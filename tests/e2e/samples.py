# SPDX-License-Identifier: Apache-2.0
"""What was measured while a load ran: an agent's memory and histograms second by second, and acknowledgements in time."""
import bisect
import itertools
import json
import threading
import time


class Samples(threading.Thread):
    """Reads memory (every 0.2 s) and a histogram of /metrics (every second) of a running agent until stop()."""

    def __init__(self, agent, histogram):
        super().__init__(daemon=True)
        self.agent, self.histogram = agent, histogram
        self.memory, self.buckets = [], []  # (time, {"RssAnon": KiB, …}), (time, {upper bound in s: count up to it})
        self.ended = threading.Event()
        self.start()

    def run(self):
        step = 0
        while True:
            self.memory.append((time.time(), self.agent.memory_kib()))
            if step % 5 == 0:
                self.buckets.append((time.time(), buckets(self.agent.metrics(), self.histogram)))
            step += 1
            if self.ended.wait(0.2):
                return

    def stop(self):
        self.ended.set()
        self.join(20)

    def highest(self, what, begin, end):
        """The highest value in KiB of one kind of memory between two times."""
        return max(m[what] for t, m in self.memory if begin <= t <= end)

    def windows(self, share, begin, end):
        """Percentiles of the whole span and of each second of it: ((value in s, samples), [value in s, …])."""
        inside = [b for t, b in self.buckets if begin <= t <= end]
        each = [percentile(a, b, share)[0] for a, b in zip(inside, inside[1:])]
        return percentile(inside[0], inside[-1], share), [x for x in each if x is not None]


def buckets(metrics, histogram):
    """{upper bound: count up to it} of a histogram, summed over its labels."""
    out = {}
    for series, value in metrics.items():
        if series.startswith(histogram + "_bucket{"):
            bound = float(series.split('le="')[1].split('"')[0].replace("+Inf", "inf"))
            out[bound] = out.get(bound, 0) + value
    return out


def percentile(before, after, share):
    """(value, samples) between two readings of a histogram, linear within a bucket; (None, 0) without a sample."""
    counts = [(bound, after[bound] - before.get(bound, 0)) for bound in sorted(after)]
    total = int(counts[-1][1]) if counts else 0
    if not total:
        return None, 0
    wanted, low, below = share * total, 0.0, 0
    for bound, up_to in counts:
        if up_to >= wanted:
            if bound == float("inf"):
                return low, total
            return round(low + (bound - low) * (wanted - below) / (up_to - below), 9), total
        low, below = bound, up_to
    return low, total


def acknowledgements(records, begin, end):
    """When writers got their acknowledgements between two times, in order."""
    times = []
    for path in records:
        with open(path, encoding="utf-8") as f:
            for line in f:
                what, _, began, took, _ = json.loads(line)
                if what == "a" and begin < (began + took) / 1000 < end:
                    times.append((began + took) / 1000)
    return sorted(times)


def longest_gap(times, begin, end, witness=None):
    """(seconds, when it began) of the longest time between begin and end with none of the times in it. With a witness, who asks the same
    cluster by another way, each such time counts less the longest one in it in which the witness got no answer either."""

    def length(a, b):
        return b - a - (longest_gap(witness[bisect.bisect(witness, a):bisect.bisect(witness, b)], a, b)[0] if witness else 0)

    points = [begin, *[t for t in times if begin < t < end], end]
    gap, at = max((length(a, b), a) for a, b in itertools.pairwise(points))
    return round(gap, 3), at
