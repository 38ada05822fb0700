# SPDX-License-Identifier: Apache-2.0
"""A CQL client of the bare protocol (v3, v4), for what no driver would send. Runs in a pod; standard library only."""
import socket
import struct

ERROR, STARTUP, READY, AUTHENTICATE, _, OPTIONS, SUPPORTED, QUERY, RESULT, PREPARE = range(10)
EXECUTE, REGISTER, EVENT, BATCH, AUTH_CHALLENGE, AUTH_RESPONSE, AUTH_SUCCESS = range(10, 17)
ONE = 1


def short(n):
    return struct.pack(">H", n)


def string(s):
    b = s.encode()
    return short(len(b)) + b


def long_string(s):
    b = s.encode()
    return struct.pack(">i", len(b)) + b


def bytes_(b):
    return struct.pack(">i", -1) if b is None else struct.pack(">i", len(b)) + b


class Closed(Exception):
    pass


class CqlError(Exception):
    def __init__(self, code, text, body):
        super().__init__(f"0x{code:04x} {text}")
        self.code, self.text, self.body = code, text, body


class Client:
    def __init__(self, host, port=9042, version=4, user="cassandra", password="cassandra", startup=True, timeout=15):
        self.version, self.next = version, 0
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.settimeout(timeout)
        if startup:
            self.startup(user, password)

    def startup(self, user, password):
        op, body = self.ask(STARTUP, short(1) + string("CQL_VERSION") + string("3.0.0"))
        if op == AUTHENTICATE:
            op, body = self.ask(AUTH_RESPONSE, bytes_(f"\0{user}\0{password}".encode()))
        if op not in (READY, AUTH_SUCCESS):
            raise CqlError(0, f"start-up ended with opcode {op}", body)

    def frame(self, opcode, body, stream=0, flags=0, version=None, length=None):
        return struct.pack(">BBhBI", version or self.version, flags, stream, opcode,
                           len(body) if length is None else length) + body

    def send(self, opcode, body, stream=None, **more):
        if stream is None:
            stream = self.next = (self.next + 1) % 1000
        self.socket.sendall(self.frame(opcode, body, stream, **more))
        return stream

    def exactly(self, n):
        out = bytearray()
        while len(out) < n:
            got = self.socket.recv(min(n - len(out), 1 << 20))
            if not got:
                raise Closed(f"closed after {len(out)} of {n} bytes")
            out += got
        return bytes(out)

    def receive(self):
        """(version, flags, stream, opcode, body) of the next frame."""
        version, flags, stream, opcode, size = struct.unpack(">BBhBI", self.exactly(9))
        body = self.exactly(size)
        if flags & 0x02 and opcode != ERROR:  # tracing id
            body = body[16:]
        if flags & 0x08:  # warnings come before the body proper
            count, at = struct.unpack(">H", body[:2])[0], 2
            for _ in range(count):
                at += 2 + struct.unpack(">H", body[at:at + 2])[0]
            body = body[at:]
        return version & 0x7F, flags, stream, opcode, body

    def ask(self, opcode, body, **more):
        stream = self.send(opcode, body, **more)
        while True:
            _, _, got, op, body = self.receive()
            if got == stream:
                break
        if op == ERROR:
            code, size = struct.unpack(">iH", body[:6])
            raise CqlError(code, body[6:6 + size].decode(), body[6 + size:])
        return op, body

    def query(self, text, flags=0, tail=b""):
        return self.ask(QUERY, long_string(text) + struct.pack(">HB", ONE, flags) + tail)

    def prepare(self, text):
        """The id."""
        _, body = self.ask(PREPARE, long_string(text))
        kind, size = struct.unpack(">iH", body[:6])
        assert kind == 4, f"result kind {kind}, not Prepared"
        return body[6:6 + size]

    def execute(self, statement_id, *values):
        body = short(len(statement_id)) + statement_id + struct.pack(">HB", ONE, 0x01 if values else 0)
        if values:
            body += short(len(values)) + b"".join(bytes_(v) for v in values)
        return self.ask(EXECUTE, body)

    def paged(self, text, size, state=None):
        """(number of rows, next paging state or None) of one page; only what a test needs of the metadata."""
        flags, tail = 0x04, struct.pack(">i", size)
        if state is not None:
            flags, tail = flags | 0x08, tail + bytes_(state)
        _, body = self.query(text, flags, tail)
        kind, meta, columns = struct.unpack(">iii", body[:12])
        assert kind == 2, f"result kind {kind}, not Rows"
        at, following = 12, None
        if meta & 0x02:
            n = struct.unpack(">i", body[at:at + 4])[0]
            following = body[at + 4:at + 4 + n]
            at += 4 + n
        if meta & 0x01:
            for _ in range(2):
                n = struct.unpack(">H", body[at:at + 2])[0]
                at += 2 + n
        for _ in range(columns):
            n = struct.unpack(">H", body[at:at + 2])[0]
            at += 2 + n
            kind_of = struct.unpack(">H", body[at:at + 2])[0]
            assert kind_of < 0x20, "only columns of plain types"
            at += 2
        return struct.unpack(">i", body[at:at + 4])[0], following

    def at_end(self, seconds=5):
        """True when the other side closes within that time; what it sent before is discarded."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.socket.close()
