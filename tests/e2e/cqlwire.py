# SPDX-License-Identifier: Apache-2.0
"""A client of the bare protocol for v3, v4 and v5 that keeps answers as they came: for tests that hold what two clients
saw against each other, byte for byte. Requests can say all that the protocol can (names, unset values, a keyspace, a
timestamp), also what is wrong. Standard library only, as rawcql."""

import re
import struct
import zlib

import rawcql
from rawcql import BATCH, ERROR, EXECUTE, PREPARE, QUERY, RESULT, bytes_, long_string, short, string

VOID, ROWS, SET_KEYSPACE, PREPARED, SCHEMA_CHANGE = range(1, 6)
LOGGED, UNLOGGED, COUNTER = range(3)
UNSET = object()
STATEMENT_ID = re.compile("statement id: [0-9a-f]{32}")

SYNTAX, UNAUTHORIZED, INVALID, CONFIG, EXISTS, UNPREPARED = 0x2000, 0x2100, 0x2200, 0x2300, 0x2400, 0x2500
UNAVAILABLE, WRITE_TIMEOUT, READ_TIMEOUT, READ_FAILURE, CAS_UNKNOWN = 0x1000, 0x1100, 0x1200, 0x1300, 0x1700

CONSISTENCY = {
    "ANY": 0,
    "ONE": 1,
    "TWO": 2,
    "QUORUM": 4,
    "ALL": 5,
    "LOCAL_QUORUM": 6,
    "SERIAL": 8,
    "LOCAL_SERIAL": 9,
    "LOCAL_ONE": 10,
}


def crc24(data):
    crc = 0x875060
    for b in data:
        crc ^= b << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1974F0B
    return crc.to_bytes(3, "little")


def crc32(data):
    return zlib.crc32(data, zlib.crc32(b"\xfa\x2d\x55\xca")).to_bytes(4, "little")


def segments(data):
    """One self-contained segment, or as many parts as it takes."""
    out, whole = b"", len(data) < 0x20000
    for at in range(0, len(data), 0x1FFFF):
        part = data[at : at + 0x1FFFF]
        head = (len(part) | (0x20000 if whole else 0)).to_bytes(3, "little")
        out += head + crc24(head) + part + crc32(part)
    return out


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise ValueError(f"{n} bytes wanted at {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]

    def int(self):
        return struct.unpack(">i", self.take(4))[0]

    def short(self):
        return struct.unpack(">H", self.take(2))[0]

    def string(self):
        return self.take(self.short()).decode()

    def short_bytes(self):
        return self.take(self.short())

    def bytes(self):
        n = self.int()
        return None if n < 0 else self.take(n)

    def type(self):
        """A type as nested tuples; what we do not know by its number."""
        kind = self.short()
        if kind == 0:
            return kind, self.string()
        if kind in (0x20, 0x22):
            return kind, self.type()
        if kind == 0x21:
            return kind, self.type(), self.type()
        if kind == 0x30:
            return (kind, self.string(), self.string()) + tuple((self.string(), self.type()) for _ in range(self.short()))
        if kind == 0x31:
            return (kind,) + tuple(self.type() for _ in range(self.short()))
        return (kind,)

    def columns(self, flags, count):
        """[(name, type)]"""
        if flags & 1:
            self.string(), self.string()
        out = []
        for _ in range(count):
            if not flags & 1:
                self.string(), self.string()
            out.append((self.string(), self.type()))
        return out


class Answer:
    """One answer: `code` and `text` of an error (code None: none), else `kind`, and the body as it came."""

    def __init__(self, version, opcode, body, warnings):
        self.version, self.opcode, self.body, self.warnings = version, opcode, body, warnings
        self.code = self.text = self.kind = None
        r = Reader(body)
        if opcode == ERROR:
            self.code, self.text = r.int(), r.string()
        elif opcode == RESULT:
            self.kind = r.int()

    def rows(self):
        """[{column: bytes or None}]"""
        return [dict(zip(self.names(), r)) for r in self.table()[1]]

    def names(self):
        return [c[0] for c in self.table()[0]]

    def table(self):
        """([(column, type)], [[bytes or None]])"""
        if self.kind != ROWS:
            return [], []
        r = Reader(self.body[4:])
        flags, count = r.int(), r.int()
        if flags & 2:
            r.bytes()
        if flags & 8:
            r.short_bytes()
        columns = [] if flags & 4 else r.columns(flags, count)
        return columns, [[r.bytes() for _ in range(count)] for _ in range(r.int())]

    def prepared(self):
        """(id, result metadata id or None, [(bind name, type)], the bytes behind the ids)"""
        r = Reader(self.body[4:])
        ident = r.short_bytes()
        result = r.short_bytes() if self.version >= 5 else None
        rest = self.data_from(r)
        flags, count = r.int(), r.int()
        if self.version >= 4:
            for _ in range(r.int()):
                r.short()
        return ident, result, r.columns(flags, count), rest

    @staticmethod
    def data_from(r):
        return r.data[r.at :]

    def seen(self, *keyspaces):
        """All that a client sees of it, without the names of these keyspaces (of equal length) and ids of statements."""
        body, warnings = self.prepared()[3] if self.kind == PREPARED else self.body, self.warnings
        for k in keyspaces:
            body = body.replace(k.encode(), b"?" * len(k))
            warnings = [w.replace(k, "?" * len(k)) for w in warnings]
        warnings = [w for w in warnings if "anti-pattern" not in w]  # said once a minute
        return self.opcode, self.kind, body, [STATEMENT_ID.sub("statement id", w) for w in warnings]

    def __str__(self):
        if self.code is not None:
            return f"error 0x{self.code:04x} {self.text}"
        name = {
            None: f"opcode {self.opcode}",
            VOID: "void",
            ROWS: "rows",
            SET_KEYSPACE: "keyspace",
            PREPARED: "prepared",
            SCHEMA_CHANGE: "schema change",
        }[self.kind]
        return f"{name} {self.table()[1]}" if self.kind == ROWS else name


class Prepared:
    def __init__(self, answer):
        self.id, self.result_id, self.binds, _ = answer.prepared()


def value(v):
    return struct.pack(">i", -2) if v is UNSET else bytes_(v)


class Client(rawcql.Client):
    """Answers come as Answer, errors as well; nothing is raised but a lost connection."""

    def __init__(self, *args, **more):
        self.segmented, self.pending = False, b""
        super().__init__(*args, **more)

    def startup(self, user, password):
        """Like the driver: nothing is segmented before the answer to STARTUP."""
        op, _ = self.ask(rawcql.STARTUP, short(1) + string("CQL_VERSION") + string("3.0.0"))
        self.segmented = self.version >= 5
        if op == rawcql.AUTHENTICATE:
            op, _ = self.ask(rawcql.AUTH_RESPONSE, bytes_(f"\0{user}\0{password}".encode()))
        if op not in (rawcql.READY, rawcql.AUTH_SUCCESS):
            raise rawcql.CqlError(0, f"start-up ended with opcode {op}", b"")

    def frame(self, opcode, body, stream=0, flags=0, version=None, length=None):
        data = super().frame(opcode, body, stream, flags, version, length)
        return segments(data) if self.segmented else data

    def exactly(self, n):
        if not self.segmented:
            return super().exactly(n)
        while len(self.pending) < n:
            head = super().exactly(6)
            size = int.from_bytes(head[:3], "little") & 0x1FFFF
            part = super().exactly(size + 4)
            assert crc24(head[:3]) == head[3:] and crc32(part[:size]) == part[size:], "a segment's checksum is wrong"
            self.pending += part[:size]
        out, self.pending = self.pending[:n], self.pending[n:]
        return out

    def answer(self):
        """(stream, Answer) of the next frame."""
        version, flags, stream, opcode, size = struct.unpack(">BBhBI", self.exactly(9))
        body, warnings = self.exactly(size), []
        r = Reader(body)
        if flags & 0x02:
            r.take(16)
        if flags & 0x08:
            warnings = [r.string() for _ in range(r.short())]
        if flags & 0x04:
            for _ in range(r.short()):
                r.string(), r.bytes()
        return stream, Answer(version & 0x7F, opcode, body[r.at :], warnings)

    def wait(self, stream):
        got, a = self.answer()
        assert got == stream, f"an answer on stream {got}, expected was {stream}"
        return a

    # ---- bodies

    def flag_bytes(self, flags):
        return struct.pack(">I", flags) if self.version >= 5 else struct.pack(">B", flags)

    def parameters(self, values, names, timestamp, consistency, serial, keyspace):
        flags, tail = 0, b""
        if values:
            flags |= 0x01
            tail += short(len(values))
            for i, v in enumerate(values):
                tail += (string(names[i]) if names else b"") + value(v)
            flags |= 0x40 if names else 0
        if serial is not None:
            flags, tail = flags | 0x10, tail + short(CONSISTENCY[serial])
        if timestamp is not None:
            flags, tail = flags | 0x20, tail + struct.pack(">q", timestamp)
        if keyspace is not None:
            flags, tail = flags | 0x80, tail + string(keyspace)
        return short(CONSISTENCY[consistency]) + self.flag_bytes(flags) + tail

    def query_body(self, text, values=(), names=None, timestamp=None, consistency="LOCAL_ONE", serial=None, keyspace=None):
        return long_string(text) + self.parameters(values, names, timestamp, consistency, serial, keyspace)

    def prepare_body(self, text, keyspace=None):
        body = long_string(text)
        if self.version >= 5:
            body += struct.pack(">I", 1 if keyspace else 0) + (string(keyspace) if keyspace else b"")
        return body

    def execute_body(self, p, values=(), timestamp=None, consistency="LOCAL_ONE", serial=None):
        body = short(len(p.id)) + p.id
        if self.version >= 5:
            body += short(len(p.result_id)) + p.result_id
        return body + self.parameters(values, None, timestamp, consistency, serial, None)

    def batch_body(self, kind, children, timestamp=None, consistency="LOCAL_ONE", serial=None, keyspace=None):
        """children: [(text or Prepared, values)]"""
        body = struct.pack(">B", kind) + short(len(children))
        for what, values in children:
            head = b"\1" + short(len(what.id)) + what.id if isinstance(what, Prepared) else b"\0" + long_string(what)
            body += head + short(len(values)) + b"".join(value(v) for v in values)
        return body + self.parameters((), None, timestamp, consistency, serial, keyspace)

    # ---- one at a time

    def tell(self, opcode, body):
        return self.wait(self.send(opcode, body))

    def query(self, text, *args, **more):
        return self.tell(QUERY, self.query_body(text, *args, **more))

    def prepare(self, text, **more):
        return self.tell(PREPARE, self.prepare_body(text, **more))

    def prepared(self, text, **more):
        a = self.prepare(text, **more)
        assert a.kind == PREPARED, f"{text}: {a}"
        return Prepared(a)

    def execute(self, p, *args, **more):
        return self.tell(EXECUTE, self.execute_body(p, *args, **more))

    def batch(self, *args, **more):
        return self.tell(BATCH, self.batch_body(*args, **more))
