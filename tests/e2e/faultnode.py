# SPDX-License-Identifier: Apache-2.0
"""A node that stands before a real one and lies about what became of a write.

A request whose text says /*fault:NAME,applied*/ is carried out by the real node, and one with /*fault:NAME,lost*/ never
reaches it; either is answered with the error of that name, or, with the name "closed", by the end of the connection.
Prepared statements keep the fault of their text. All else passes, and connections of v5 pass unread.
"""

import re
import select
import socket
import struct
import threading

from cqlwire import BATCH, EXECUTE, PREPARE, PREPARED, QUERY, RESULT, Answer, short, string

FAULT = re.compile(rb"/\*fault:(\w+),(applied|lost)\*/")
ONE = short(1)
ERRORS = {
    "write_timeout": (0x1100, ONE + struct.pack(">ii", 0, 1) + string("SIMPLE")),
    "batch_log_timeout": (0x1100, ONE + struct.pack(">ii", 0, 1) + string("BATCH_LOG")),
    "write_failure": (0x1500, ONE + struct.pack(">iii", 0, 1, 1) + string("SIMPLE")),
    "cas_unknown": (0x1700, ONE + struct.pack(">ii", 0, 1)),
    "server_error": (0x0000, b""),
    "overloaded": (0x1001, b""),
    "truncate_error": (0x1003, b""),
    "nobody_knows": (0x1ABC, b""),
    "unavailable": (0x1000, ONE + struct.pack(">ii", 1, 0)),
    "bootstrapping": (0x1002, b""),
}
UNKNOWN = (
    "write_timeout",
    "batch_log_timeout",
    "write_failure",
    "cas_unknown",
    "server_error",
    "overloaded",
    "truncate_error",
    "nobody_knows",
    "closed",
)


class Gone(Exception):
    pass


class Connection(threading.Thread):
    def __init__(self, node, near):
        super().__init__(daemon=True)
        self.node, self.near = node, near
        self.far = socket.create_connection(node.real, 10)
        self.faults = {}  # stream -> what to do with its answer
        self.preparing = {}  # stream -> fault of the text

    def run(self):
        buffers = {self.near: b"", self.far: b""}
        raw = None
        try:
            while not self.node.stopping:
                for s in select.select([self.near, self.far], [], [], 0.2)[0]:
                    data = s.recv(1 << 16)
                    if not data:
                        return
                    if raw is None and s is self.near:
                        raw = data[0] & 0x7F not in (3, 4)
                    if raw:
                        (self.far if s is self.near else self.near).sendall(data)
                        continue
                    buffers[s] += data
                    while len(buffers[s]) >= 9:
                        size = 9 + struct.unpack(">I", buffers[s][5:9])[0]
                        if len(buffers[s]) < size:
                            break
                        frame, buffers[s] = buffers[s][:size], buffers[s][size:]
                        (self.request if s is self.near else self.answer)(frame)
        except (OSError, Gone):
            pass
        finally:
            self.near.close()
            self.far.close()

    def fault_of(self, opcode, body):
        found = FAULT.search(body) if opcode in (QUERY, PREPARE, BATCH) else None
        if found:
            return found[1].decode(), found[2].decode()
        if opcode == EXECUTE:
            return self.node.prepared.get(body[2 : 2 + struct.unpack(">H", body[:2])[0]])
        if opcode == BATCH:
            return next((f for i, f in self.node.prepared.items() if i in body), None)
        return None

    def request(self, frame):
        stream, opcode = struct.unpack(">hB", frame[2:5])
        fault = self.fault_of(opcode, frame[9:])
        if opcode == PREPARE:
            self.preparing[stream] = fault
        elif fault:
            self.node.met.append(fault)
            if fault[1] == "lost":
                self.fail(frame[0], stream, fault[0])
                return
            self.faults[stream] = fault[0]
        self.far.sendall(frame)

    def answer(self, frame):
        stream, opcode = struct.unpack(">hB", frame[2:5])
        fault = self.preparing.pop(stream, None)
        if fault and opcode == RESULT:
            a = Answer(frame[0] & 0x7F, opcode, frame[9:], [])
            assert a.kind == PREPARED
            self.node.prepared[a.prepared()[0]] = fault
        fault = self.faults.pop(stream, None)
        if fault:
            self.node.outcomes.append(opcode)
            self.fail(frame[0], stream, fault)
        else:
            self.near.sendall(frame)

    def fail(self, version, stream, name):
        if name == "closed":
            raise Gone
        code, tail = ERRORS[name]
        body = struct.pack(">i", code) + string(f"scripted {name}") + tail
        self.near.sendall(struct.pack(">BBhBI", version | 0x80, 0, stream, 0, len(body)) + body)


class FaultNode:
    """Give it to make_agent as the origin. `met`: faults that requests asked for; `outcomes`: opcodes of the real
    node's answers that nobody saw."""

    def __init__(self, address, real, name="origin"):
        self.listener = socket.create_server((address, 0))
        self.listener.settimeout(0.2)
        self.address, self.port = self.listener.getsockname()
        self.addresses, self.name = [f"{self.address}:{self.port}"], name
        self.real, self.stopping, self.met, self.outcomes, self.prepared = real, False, [], [], {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping:
            try:
                near, _ = self.listener.accept()
            except TimeoutError:
                continue
            try:
                Connection(self, near).start()
            except OSError:
                near.close()

    def close(self):
        self.stopping = True
        self.thread.join(5)
        self.listener.close()
