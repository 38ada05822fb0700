# SPDX-License-Identifier: Apache-2.0
"""What the agent mirrors, by the ways that it takes. LAB_FAMILIES, names with commas, has the tests of some collected for one run."""

import os

ALL = ("plain", "lwt", "counter", "list", "function", "undecided", "unknown", "hold", "order")


def mirrored(*names):
    """Those of the names that are to be tested."""
    wanted = os.environ.get("LAB_FAMILIES", "")
    chosen = tuple(wanted.split(",")) if wanted else ALL
    return [n for n in names or ALL if n in chosen]
