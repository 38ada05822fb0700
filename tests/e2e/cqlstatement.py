# SPDX-License-Identifier: Apache-2.0
"""A statement as a test sends it: its texts and bound values, how it is sent, and what it touches."""

import re
from dataclasses import dataclass, field

from cqlvalues import literal, pack
from cqlwire import LOGGED, UNSET

CALL = re.compile(r"\b(now|uuid|current_?\w+)\b", re.I)
KS = "\0"  # stands for the keyspace in a text


@dataclass
class Piece:
    """The text of one statement with its bound values, and what it touches."""

    text: str
    values: list = field(default_factory=list)
    names: list = None
    tags: set = field(default_factory=set)
    touches: set = field(default_factory=set)
    timestamp: int = None
    loose: bool = False  # values differ from run to run: only the shape can be compared with another keyspace
    write: bool = True


@dataclass
class Statement:
    number: int
    form: str  # "simple", "prepared", "batch", "again"
    version: int
    pieces: list
    timestamp: int = None
    serial: str = None
    kind: int = LOGGED
    by_request: bool = False  # v5: the keyspace goes with the request
    ahead: list = field(default_factory=list)  # for a batch: whether each child is prepared

    @property
    def touches(self):
        return set().union(*(p.touches for p in self.pieces))

    @property
    def loose(self):
        return any(p.loose for p in self.pieces)

    @property
    def calls(self):
        """Whether the agent puts values in place of calls."""
        return any(CALL.search(p.text) for p in self.pieces)

    def __str__(self):
        def one(p):
            values = ", ".join(
                "unset" if v is UNSET else "null" if v is None else "0x" + v.hex() if len(v) <= 40 else f"{len(v)} bytes"
                for v in p.values
            )
            return p.text.replace(KS, "KS") + (f"  <- {values}" if p.values else "")

        at = f" at {self.timestamp}" if self.timestamp is not None else ""
        return f"#{self.number} v{self.version} {self.form}{at}: " + "\n      ".join(one(p) for p in self.pieces)


class Binder:
    """Writes terms: as literals, as ? or as :name, and gathers the bound values in their order."""

    def __init__(self, rng, share, named=False):
        self.rng, self.share, self.values = rng, share, []
        self.names = [] if named else None

    def bind(self, data):
        self.values.append(data)
        if self.names is None:
            return "?"
        self.names.append(f"n{len(self.names)}")
        return ":" + self.names[-1]

    def term(self, t, v):
        if self.rng.random() < self.share:
            return self.bind(pack(t, v))
        return literal(t, v, self.rng)
