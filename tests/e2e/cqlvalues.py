# SPDX-License-Identifier: Apache-2.0
"""CQL types: random values of each, and the three forms in which one can be written: literal, JSON, bytes of the protocol.

A type is a scalar's name, or a tuple: ("list", T) ("set", T) ("map", K, V) ("tuple", T, …) ("udt", name, ((field, T), …))
("vector", T, n) ("frozen", T). A value is what Python has for it; sets and maps are lists of distinct entries, a
decimal is (unscaled, scale), a timestamp milliseconds, a date days since 1970, a time nanoseconds, a duration (months,
days, nanoseconds).
"""

import datetime
import ipaddress
import json as json_
import struct
import uuid

# What a naive reader of CQL trips over, and what needs its quotes.
WORDS = (
    "",
    "a",
    "it's",
    "''",
    "-- no comment",
    "/* now() */",
    "// USE other;",
    "; DROP TABLE scalars;",
    "BEGIN BATCH",
    "APPLY BATCH;",
    "$",
    "?",
    ":name",
    "uuid()",
    "IF NOT EXISTS",
    "USING TIMESTAMP 1",
    "ümläut ☃",
    "{}",
    "[1]",
    "tab\tand\nline",
    '"',
    "\\",
)


def text_value(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 4))) + str(rng.randrange(1000))


def quote(s, rng):
    # $$ strings know no escape at all.
    if rng.random() < 0.25 and "$" not in s:
        return f"$${s}$$"
    return "'" + s.replace("'", "''") + "'"


def integer(bits):
    def pick(rng):
        top = 1 << (bits - 1)
        return rng.choice((0, 1, -1, top - 1, -top, rng.randrange(-top, top), rng.randrange(-50, 50)))

    return pick


def varint(n):
    return n.to_bytes((n + (n < 0)).bit_length() // 8 + 1, "big", signed=True)


def vint(n):
    """Cassandra's unsigned variable integer: as many leading one bits as bytes follow."""
    size = next(s for s in range(1, 10) if s == 9 or n < 1 << (7 * s))
    if size == 9:
        return b"\xff" + n.to_bytes(8, "big")
    out = bytearray(n.to_bytes(size, "big"))
    out[0] |= (0xFF00 >> (size - 1)) & 0xFF
    return bytes(out)


def zigzag(n):
    return vint((n << 1) ^ (n >> 63) if n < 0 else n << 1)


def time_uuid(rng):
    ticks = 0x01EC9414840C0000 + rng.randrange(10**14)
    return uuid.UUID(
        fields=(
            ticks & 0xFFFFFFFF,
            (ticks >> 32) & 0xFFFF,
            0x1000 | (ticks >> 48) & 0x0FFF,
            0x80 | rng.randrange(64),
            rng.randrange(256),
            rng.randrange(1 << 48),
        )
    )


def clock(ns):
    s, ns = divmod(ns, 10**9)
    return f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.{ns:09}"


def instant(ms):
    t = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return t.strftime("%Y-%m-%dT%H:%M:%S.") + f"{t.microsecond // 1000:03}+0000"


def day(days):
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days)).isoformat()


def span(v):
    months, days, ns = v
    if not any(v):
        return "0s"
    sign = "-" if min(v) < 0 else ""
    return sign + "".join(f"{abs(n)}{unit}" for n, unit in ((months, "mo"), (days, "d"), (ns, "ns")) if n)


def a_span(rng):
    sign = rng.choice((1, 1, -1))
    return tuple(sign * n for n in (rng.randrange(30), rng.randrange(60), rng.randrange(10**14)))


def number(rng):
    return rng.choice((0.0, -0.5, 1.25, 1e10, float("nan"), float("inf"), float("-inf"), rng.randrange(-(10**6), 10**6) / 8))


def shown(f):
    return "NaN" if f != f else ("-" if f < 0 else "") + "Infinity" if abs(f) == float("inf") else repr(f)


def plain(v, rng):
    return str(v)


def quoted(form):
    return lambda v, rng: f"'{form(v)}'"


# name: (random value, literal, JSON, bytes)
SCALARS = {
    "text": (text_value, quote, json_.dumps, str.encode),
    "varchar": (text_value, quote, json_.dumps, str.encode),
    "ascii": (lambda r: "".join(c for c in text_value(r) if ord(c) < 128), quote, json_.dumps, str.encode),
    "int": (integer(32), plain, str, lambda v: struct.pack(">i", v)),
    "bigint": (integer(64), plain, str, lambda v: struct.pack(">q", v)),
    "smallint": (integer(16), plain, str, lambda v: struct.pack(">h", v)),
    "tinyint": (integer(8), plain, str, lambda v: struct.pack(">b", v)),
    "varint": (integer(90), plain, str, varint),
    "boolean": (lambda r: r.random() < 0.5, plain, lambda v: str(v).lower(), lambda v: bytes([v])),
    "blob": (lambda r: r.randbytes(r.choice((0, 1, 16, 300))), lambda v, r: "0x" + v.hex(), lambda v: f'"0x{v.hex()}"', bytes),
    "float": (number, lambda v, r: shown(v), lambda v: json_.dumps(shown(v)), lambda v: struct.pack(">f", v)),
    "double": (number, lambda v, r: shown(v), lambda v: json_.dumps(shown(v)), lambda v: struct.pack(">d", v)),
    "decimal": (
        lambda r: (integer(70)(r), r.randrange(0, 20)),
        lambda v, r: f"{v[0]}E-{v[1]}",
        lambda v: f'"{v[0]}E-{v[1]}"',
        lambda v: struct.pack(">i", v[1]) + varint(v[0]),
    ),
    "uuid": (lambda r: uuid.UUID(int=r.getrandbits(128), version=4), plain, lambda v: f'"{v}"', lambda v: v.bytes),
    "timeuuid": (time_uuid, plain, lambda v: f'"{v}"', lambda v: v.bytes),
    "inet": (
        lambda r: ipaddress.ip_address(r.choice((r.getrandbits(32), (0x20010DB8 << 96) + r.getrandbits(60)))),
        quoted(str),
        lambda v: f'"{v}"',
        lambda v: v.packed,
    ),
    "timestamp": (
        lambda r: r.randrange(4 * 10**12),
        lambda v, r: r.choice((str(v), f"'{instant(v)}'")),
        lambda v: f'"{instant(v)}"',
        lambda v: struct.pack(">q", v),
    ),
    "date": (
        lambda r: r.randrange(-20000, 40000),
        quoted(day),
        lambda v: f'"{day(v)}"',
        lambda v: struct.pack(">I", v + (1 << 31)),
    ),
    "time": (lambda r: r.randrange(86400 * 10**9), quoted(clock), lambda v: f'"{clock(v)}"', lambda v: struct.pack(">q", v)),
    "duration": (a_span, lambda v, r: span(v), lambda v: f'"{span(v)}"', lambda v: b"".join(zigzag(n) for n in v)),
}
FIXED = {"float": 4, "double": 8, "int": 4, "bigint": 8}  # elements of a vector that carry no length


def bare(t):
    return t[1] if t[0] == "frozen" else t


def name(t):
    """As CREATE TABLE wants it."""
    if isinstance(t, str):
        return t
    if t[0] == "udt":
        return t[1]
    if t[0] == "vector":
        return f"vector<{name(t[1])}, {t[2]}>"
    return f"{t[0]}<{', '.join(name(x) for x in t[1:])}>"


def pick(t, rng, most=4):
    t = bare(t)
    if isinstance(t, str):
        return SCALARS[t][0](rng)
    if t[0] == "list":
        return [pick(t[1], rng, 2) for _ in range(rng.randrange(1, most))]
    if t[0] == "set":
        return list({pack(t[1], v): v for v in (pick(t[1], rng, 2) for _ in range(rng.randrange(1, most)))}.values())
    if t[0] == "map":
        return list(
            {pack(t[1], k): (k, pick(t[2], rng, 2)) for k in (pick(t[1], rng, 2) for _ in range(rng.randrange(1, most)))}.values()
        )
    if t[0] == "vector":
        return [rng.randrange(-80, 80) / 8 for _ in range(t[2])]
    kinds = [f[1] for f in t[2]] if t[0] == "udt" else t[1:]
    return [pick(x, rng, 2) if rng.random() < 0.85 else None for x in kinds]


def literal(t, v, rng):
    t = bare(t)
    if v is None:
        return "null"
    if isinstance(t, str):
        return SCALARS[t][1](v, rng)
    if t[0] in ("list", "vector"):
        return "[" + ", ".join(literal(t[1], x, rng) for x in v) + "]"
    if t[0] == "set":
        return "{" + ", ".join(literal(t[1], x, rng) for x in v) + "}"
    if t[0] == "map":
        return "{" + ", ".join(f"{literal(t[1], k, rng)}: {literal(t[2], x, rng)}" for k, x in v) + "}"
    if t[0] == "udt":
        return "{" + ", ".join(f"{f}: {literal(x, e, rng)}" for (f, x), e in zip(t[2], v)) + "}"
    return "(" + ", ".join(literal(x, e, rng) for x, e in zip(t[1:], v)) + ")"


def json_key(t, v):
    text = json(t, v)
    return text if text.startswith('"') else json_.dumps(text)


def json(t, v):
    t = bare(t)
    if v is None:
        return "null"
    if isinstance(t, str):
        return SCALARS[t][2](v)
    if t[0] in ("list", "set", "vector"):
        return "[" + ", ".join(json(t[1], x) for x in v) + "]"
    if t[0] == "map":
        return "{" + ", ".join(f"{json_key(t[1], k)}: {json(t[2], x)}" for k, x in v) + "}"
    if t[0] == "udt":
        return "{" + ", ".join(f"{json_.dumps(f)}: {json(x, e)}" for (f, x), e in zip(t[2], v)) + "}"
    return "[" + ", ".join(json(x, e) for x, e in zip(t[1:], v)) + "]"


def sized(b):
    return struct.pack(">i", -1) if b is None else struct.pack(">i", len(b)) + b


def pack(t, v):
    """The bytes of a bound value; None for null."""
    t = bare(t)
    if v is None:
        return None
    if isinstance(t, str):
        return SCALARS[t][3](v)
    if t[0] in ("list", "set"):
        return struct.pack(">i", len(v)) + b"".join(sized(pack(t[1], x)) for x in v)
    if t[0] == "map":
        return struct.pack(">i", len(v)) + b"".join(sized(pack(t[1], k)) + sized(pack(t[2], x)) for k, x in v)
    if t[0] == "vector":
        assert t[1] in FIXED
        return b"".join(pack(t[1], x) for x in v)
    kinds = [f[1] for f in t[2]] if t[0] == "udt" else t[1:]
    return b"".join(sized(pack(x, e)) for x, e in zip(kinds, v))


def has(t, what):
    """Whether a type of that kind ("list", "vector", …) is anywhere in it."""
    return t == what if isinstance(t, str) else any(has(x, what) for x in t if isinstance(x, (str, tuple)))
