# SPDX-License-Identifier: Apache-2.0
"""Two clients that send the same statements, one through the agent and one straight to the origin into a keyspace of
its own, and what is held against each other: every answer as it comes, and all rows at the end."""

import time

import cqlwire
from cqlstatement import KS

CLIENTS_BEFORE = 10**15  # µs: timestamps below are the clients' own (see cqlmaker.CLOCK)


class Pair:
    """The two connections of one protocol version."""

    def __init__(self, agent, origin, keyspaces, version, bound):
        self.keyspaces = keyspaces
        self.clients = [cqlwire.Client(*agent, version=version, timeout=30), cqlwire.Client(*origin, version=version, timeout=30)]
        self.prepared = {}
        if bound:
            self.both(cqlwire.QUERY, [c.query_body(f"USE {k}") for c, k in zip(self.clients, keyspaces)])

    def both(self, opcode, bodies):
        streams = [c.send(opcode, b) for c, b in zip(self.clients, bodies)]
        return [c.wait(s) for c, s in zip(self.clients, streams)]

    def close(self):
        for c in self.clients:
            c.close()


class Differ:
    def __init__(self, agent, origin, keyspaces, versions=(3, 4, 5)):
        """agent, origin: (address, port); keyspaces: (through the agent, straight), names of one length."""
        assert len(keyspaces[0]) == len(keyspaces[1]), "errors tell positions in the text"
        self.keyspaces, self.versions, self.by_request, self.done = keyspaces, versions, None, []
        self.pairs = {v: Pair(agent, origin, keyspaces, v, True) for v in versions}
        if 5 in versions:
            self.by_request = Pair(agent, origin, keyspaces, 5, False)

    def close(self):
        for p in [*self.pairs.values(), self.by_request]:
            if p:
                p.close()

    def names(self, s):
        return self.keyspaces if s.by_request else (None, None)

    def prepare(self, pair, s, text):
        """([Prepared, Prepared] or None, [Answer, Answer])"""
        known = pair.prepared.get(text)
        if known:
            return known, None
        answers = pair.both(
            cqlwire.PREPARE,
            [c.prepare_body(text.replace(KS, k), keyspace=n) for c, k, n in zip(pair.clients, self.keyspaces, self.names(s))],
        )
        if any(a.kind != cqlwire.PREPARED for a in answers):
            return None, answers
        pair.prepared[text] = [cqlwire.Prepared(a) for a in answers]
        return pair.prepared[text], answers

    def differ(self, answers, loose=False, calls=False):
        """What the two clients saw differently, or None."""
        if answers is None:
            return None
        a, b = answers
        if loose and a.code == b.code is None:
            same = (a.opcode, a.kind, a.kind == cqlwire.ROWS and a.names()) == (
                b.opcode,
                b.kind,
                b.kind == cqlwire.ROWS and b.names(),
            )
        elif calls and a.code == b.code is not None:
            same = True  # the words show the value that a call became, and another position
        else:
            same = a.seen(*self.keyspaces) == b.seen(*self.keyspaces)
        return None if same else f"through the agent: {a} {a.warnings or ''}\n  straight:          {b} {b.warnings or ''}"

    def request(self, pair, s):
        """(opcode, [body, body]), all prepared that it needs; or (None, answers) when it cannot be prepared."""
        p, names = s.pieces[0], self.names(s)
        options = [dict(timestamp=s.timestamp, **({"serial": s.serial} if s.serial else {})) for _ in names]
        if s.form == "simple":
            for o, n in zip(options, names):
                o.update(keyspace=n, values=p.values, names=p.names if p.values else None)
            return cqlwire.QUERY, [
                c.query_body(p.text.replace(KS, k), **o) for c, k, o in zip(pair.clients, self.keyspaces, options)
            ]
        if s.form == "batch":
            children = [[], []]
            for piece, ahead in zip(s.pieces, s.ahead):
                what = None
                if ahead:
                    what, told = self.prepare(pair, s, piece.text)
                    if self.differ(told) or what is None:
                        return None, told
                for i, k in enumerate(self.keyspaces):
                    children[i].append((what[i] if ahead else piece.text.replace(KS, k), piece.values))
            return cqlwire.BATCH, [
                c.batch_body(s.kind, x, keyspace=n, **o) for c, x, n, o in zip(pair.clients, children, names, options)
            ]
        what, told = self.prepare(pair, s, p.text)
        if self.differ(told) or what is None:
            return None, told
        return cqlwire.EXECUTE, [c.execute_body(w, p.values, **o) for c, w, o in zip(pair.clients, what, options)]

    def run(self, s):
        """Sends one statement both ways. The difference that the clients saw, or None."""
        pair = self.by_request if s.by_request and self.by_request else self.pairs[s.version]
        opcode, bodies = self.request(pair, s)
        if opcode is None:
            return self.differ(bodies)
        answers = pair.both(opcode, bodies)
        if cqlwire.UNPREPARED in (answers[0].code, answers[1].code):
            # After a schema change, or since the node has room for so many. As a driver does: only where it was not executed.
            pair.prepared.clear()
            opcode, bodies = self.request(pair, s)
            for i, c in enumerate(pair.clients):
                if answers[i].code == cqlwire.UNPREPARED:
                    answers[i] = c.wait(c.send(opcode, bodies[i]))
        return self.differ(answers, s.loose, s.calls)

    def run_all(self, statements):
        """Until the first difference that a client saw; its description, or None."""
        for s in statements:
            self.done.append(s)
            found = self.run(s)
            if found:
                return f"{s}\n  {found}"
        return None

    def story(self, at):
        """The statements that touched a row's partition: what a difference is to be looked for in."""
        table, key = at
        names = {table, f'"{table}"'}
        return [s for s in self.done if any(t in names and key[: len(k)] == k for t, k in s.touches)]


def report(found, story, most=5):
    """The first differences, and the end of the first one's story."""
    lines = [f"{len(found)} differences:"] + [words for _, words in found[:most]]
    return "\n".join(lines + [f"What touched the first ({len(story)} statements):"] + [str(s) for s in story[-12:]])


def shrink(statements, fails, seconds=60):
    """The statements without those that can be left out while it still fails, as far as one gets in that time."""
    at, end = 0, time.time() + seconds
    while at < len(statements) and time.time() < end:
        fewer = statements[:at] + statements[at + 1 :]
        if fails(fewer):
            statements = fewer
        else:
            at += 1
    return statements


def other_clock(started):
    """WRITETIMEs of two runs: those that the client gave are equal, the others are from this run."""

    def pass_for_equal(one, two):
        return len(one) == len(two) and all(
            x == y or None not in (x, y) and min(x, y) > max(CLIENTS_BEFORE, started) for x, y in zip(one, two)
        )

    return pass_for_equal


def shape(rows, loose):
    """Of tables whose values are another each time: which rows have which columns; of keys made by the server, how many."""
    out = {}
    for (table, key), row in rows.items():
        if table == "stream":
            at = (table, key[:1] + (b"%d" % sum(1 for t, k in out if t == table and k[:1] == key[:1]),))
            out[at] = {}
        elif table in loose:
            out[(table, key)] = {c: (None if v is None else b"a value", (), ()) for c, (v, _, _) in row.items()}
    return out
