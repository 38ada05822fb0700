# SPDX-License-Identifier: Apache-2.0
"""What the agent mirrors, by the ways that it takes. A test of a way that is not listed here is not collected; LAB_FAMILIES=all, or
names with commas, has them collected for one run.

MIXED: what random statements are mixed of. Not the others: a row sync cannot read the tombstones of a collection that was assigned as a
whole, so with client timestamps older than the cluster's own among them (the generator's are from 1970) such a mix ends with elements on the
target that the origin's tombstone hides. LAB_FAMILIES=all shows it."""

import os

ALL = ("plain", "lwt", "counter", "list", "function", "undecided", "unknown", "hold", "order")
MIRRORED = ("plain", "lwt", "counter", "list", "function", "undecided", "unknown", "hold", "order")
MIXED = ("plain",)


def mixed():
    """What random statements are mixed of."""
    return mirrored() if os.environ.get("LAB_FAMILIES") else list(MIXED)


def mirrored(*names):
    """Those of the names that are to be tested."""
    wanted = os.environ.get("LAB_FAMILIES", "")
    chosen = ALL if wanted == "all" else tuple(wanted.split(",")) if wanted else MIRRORED
    return [n for n in names or ALL if n in chosen]
