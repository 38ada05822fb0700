# SPDX-License-Identifier: Apache-2.0
"""What the agent mirrors exactly, by the ways that it takes. A test of a way that is not listed here is not collected;
LAB_FAMILIES=all, or names with commas, has them collected for one run."""

import os

ALL = ("plain", "lwt", "counter", "list", "function", "undecided", "unknown", "hold", "order")
MIRRORED = ("plain", "lwt", "counter", "list", "function", "undecided", "unknown", "hold", "order")


def mirrored(*names):
    """Those of the names that are to be tested."""
    wanted = os.environ.get("LAB_FAMILIES", "")
    chosen = ALL if wanted == "all" else tuple(wanted.split(",")) if wanted else MIRRORED
    return [n for n in names or ALL if n in chosen]
