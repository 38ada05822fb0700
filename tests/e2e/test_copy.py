# SPDX-License-Identifier: Apache-2.0
"""`cqlferry copy` against cqlsh's COPY on a real cluster: same files, same rows, whatever the network allows."""
import json
import os
import signal
import subprocess
import time

import lab
import pytest
import tlslab
from copyshell import Shell, peak_kib

pytestmark = pytest.mark.quick

# One column of each type; nested ones as well. {frozen} types keep empty collections apart from null.
COLUMNS = """a ascii, b bigint, bl blob, bo boolean, d date, de decimal, do double, f float, i inet, si smallint, t text,
    ti time, ts timestamp, tu timeuuid, ty tinyint, u uuid, vi varint, l list<int>, s set<text>, m map<text, int>,
    fl frozen<list<double>>, tup frozen<tuple<int, text, float>>, udt frozen<address>, p person, mu map<uuid, text>, sin set<inet>,
    nest map<text, frozen<list<frozen<map<int, timestamp>>>>>"""
COLUMNS_5 = ", v vector<float, 3>, vt vector<text, 2>"

ROWS = [
    "INSERT INTO {t} (id) VALUES (1)",
    """INSERT INTO {t} (id, a, b, bl, bo, d, de, do, f, i, si, t, ti, ts, tu, ty, u, vi, l, s, m, fl, tup, udt, p, mu, sin, nest)
    VALUES (2, 'asc', 9223372036854775807, 0x00ff10, true, '2020-02-29', 1.50, 3.141592653589793, 2.5, '10.0.0.1', -5,
    'hello "w", it''s', '12:34:56.789012345', '2020-01-02 03:04:05.678+0000', 50554d6e-29bb-11e5-b345-feff819cdc9f, -128,
    123e4567-e89b-12d3-a456-426655440000, 123456789012345678901234567890, [1, 2, 3], {{'x', 'y''z', 'q,r'}}, {{'k1': 1, 'k,2': 2}},
    [1.5, 2.25, 1e300], (1, 'two', 3.5), {{street: 'Main "St"', zip: 12345, tags: {{'a', 'b'}}}},
    {{name: 'Ann', home: {{street: 'x', zip: 1, tags: {{}}}}, born: '1999-12-31'}},
    {{123e4567-e89b-12d3-a456-426655440000: 'one', 00000000-0000-1000-8000-000000000000: 'two',
    ffffffff-ffff-4fff-bfff-ffffffffffff: 'three'}}, {{'10.0.0.10', '9.0.0.1', '::1', '192.168.1.1'}},
    {{'n': [{{1: '2020-01-01 00:00:00+0000', 2: '1969-12-31 23:59:59.999+0000'}}]}})""",
    """INSERT INTO {t} (id, b, bl, bo, d, de, do, f, i, si, t, ti, ts, ty, vi, l, fl) VALUES (3, -1, 0x, false, '0001-01-01',
    -0.000000123, 1e-7, 1.1, 'fe80::1', 32767, '', '00:00:00', '1960-01-01 00:00:00+0000', 0, -1, [], [])""",
    """INSERT INTO {t} (id, b, de, do, f, t, vi, ts) VALUES (4, 0, 1E+30, NaN, -Infinity, 'ünï €😀',
    -170141183460469231731687303715884105729, '1500-01-01 00:00:00+0000')""",
    "INSERT INTO {t} (id, b, de, do, f, vi) VALUES (5, 100, 123456.789, 123456.789, 16777216, 0)",
    "INSERT INTO {t} (id, de, do, f) VALUES (6, 1E-10, 0.00001234567, 99999.99)",
]
# What cqlsh writes, but reads as something else: backslashes and control characters.
ESCAPES = [r"INSERT INTO {t} (id, t, l) VALUES (7, $$back\slash 'q' \n$$, [7])",
           "INSERT INTO {t} (id, t, s) VALUES (8, 'line\ntwo\ttab', {{'a\nb', 'c\\d'}})"]


@pytest.fixture(scope="module")
def tables(origin):
    """Keyspace and tables of this file, filled once."""
    vectors = not (origin.version or "5").startswith("4")
    columns = COLUMNS + (COLUMNS_5 if vectors else "")
    statements = ["DROP KEYSPACE IF EXISTS copy", "CREATE KEYSPACE copy WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
                  "CREATE TYPE copy.address (street text, zip int, tags set<text>)",
                  "CREATE TYPE copy.person (name text, home frozen<address>, born date)"]
    statements += [f"CREATE TABLE copy.{t} (id int PRIMARY KEY, {columns})" for t in ("types", "back", "escapes", "escapes_back")]
    for t in ("types", "escapes"):
        statements += [r.format(t=f"copy.{t}") for r in (ROWS if t == "types" else ROWS[:1] + ESCAPES)]
    if vectors:
        statements.append("INSERT INTO copy.types (id, v, vt) VALUES (9, [1.0, 2.5, -3], ['a', 'b,c'])")
    statements += ["CREATE TABLE copy.durations (id int PRIMARY KEY, du duration)",
                   "INSERT INTO copy.durations (id, du) VALUES (1, 1y2mo3d4h5m6s7ms8us9ns)",
                   "INSERT INTO copy.durations (id, du) VALUES (2, -3mo)",
                   "CREATE TABLE copy.counts (a text, b int, c counter, d counter, PRIMARY KEY (a, b))",
                   "CREATE TABLE copy.counts_back (a text, b int, c counter, d counter, PRIMARY KEY (a, b))",
                   "UPDATE copy.counts SET c = c + 5, d = d - 1 WHERE a = 'x' AND b = 1",
                   "UPDATE copy.counts SET c = c + 7, d = d + 0 WHERE a = 'y' AND b = 2",
                   "CREATE TABLE copy.rows (a text, b int, c int, st text static, v text, PRIMARY KEY ((a, b), c))",
                   "CREATE TABLE copy.many (id int PRIMARY KEY, a text, b int)",
                   "CREATE TABLE copy.many_back (id int PRIMARY KEY, a text, b int)"]
    origin.run(*statements)
    yield "copy"
    origin.run("DROP KEYSPACE copy")


@pytest.fixture
def shell(origin, tables, tmp_path):
    return Shell(origin, tmp_path)


@pytest.mark.parametrize("options", ["HEADER=TRUE", "HEADER=FALSE AND DELIMITER='|' AND QUOTE='~' AND NULL='nil' AND BOOLSTYLE='yes,no'",
                                     "HEADER=TRUE AND ESCAPE='\"' AND DATETIMEFORMAT='%d/%m/%Y %H:%M' AND FLOATPRECISION=3"])
def test_files_are_those_of_cqlsh(shell, options):
    """Every type, written by both with the same options: the same bytes, but for the order of rows."""
    shell.cqlsh(f"COPY copy.types TO '{shell.path('cqlsh.csv')}' WITH {options}")
    r = shell.copy("-e", f"COPY copy.types TO '{shell.path('ferry.csv')}' WITH {options} AND CONNECTIONMODE='auto'")
    assert "rows exported to 1 files in" in r.stdout and "Starting copy of copy.types with columns [id, a, b," in r.stdout
    assert shell.lines("cqlsh.csv") == shell.lines("ferry.csv")
    assert len(shell.lines("ferry.csv")) >= 7


def test_round_trip_from_cqlsh(shell, origin):
    """cqlsh TO → copy from → copy to → the same file; once more with statements as text."""
    shell.cqlsh(f"COPY copy.types TO '{shell.path('cqlsh.csv')}' WITH HEADER=TRUE")
    for more in ([], ["--preparedstatements", "false"]):
        origin.run("TRUNCATE copy.back")
        r = shell.copy("from", "copy.back", "cqlsh.csv", "--header", *more)
        assert "rows imported from 1 files in" in r.stdout
        shell.copy("to", "copy.back", "ferry.csv", "--header")
        assert shell.lines("cqlsh.csv") == shell.lines("ferry.csv")


def test_round_trip_through_cqlsh(shell, origin):
    """copy to → cqlsh FROM → cqlsh TO → the same file."""
    origin.run("TRUNCATE copy.back")
    shell.copy("to", "copy.types", "ferry.csv", "--header")
    shell.cqlsh(f"COPY copy.back FROM '{shell.path('ferry.csv')}' WITH HEADER=TRUE; "
                f"COPY copy.back TO '{shell.path('cqlsh.csv')}' WITH HEADER=TRUE")
    assert shell.lines("cqlsh.csv") == shell.lines("ferry.csv")


def test_what_cqlsh_cannot_read_back(shell, origin):
    """Backslashes, control characters and durations survive; TEXTESCAPES=FALSE reads them as cqlsh does."""
    shell.cqlsh(f"COPY copy.escapes TO '{shell.path('cqlsh.csv')}'; COPY copy.durations TO '{shell.path('durations.csv')}'")
    shell.copy("from", "copy.escapes_back", "cqlsh.csv")
    read = "SELECT id, t, s FROM copy.{}"
    assert origin.run(read.format("escapes")) == origin.run(read.format("escapes_back"))
    shell.copy("to", "copy.escapes_back", "ferry.csv")
    assert shell.lines("cqlsh.csv") == shell.lines("ferry.csv")
    shell.copy("from", "copy.escapes_back", "cqlsh.csv", "--textescapes", "false")
    assert origin.run("SELECT t FROM copy.escapes_back WHERE id = 8")[0][0] == r"line\ntwo\ttab"
    shell.copy("from", "copy.durations", "durations.csv")
    shell.copy("to", "copy.durations", "again.csv")
    assert shell.lines("durations.csv") == shell.lines("again.csv")


def test_counters(shell, origin):
    shell.cqlsh(f"COPY copy.counts TO '{shell.path('cqlsh.csv')}'")
    shell.copy("from", "copy.counts_back", "cqlsh.csv")
    shell.copy("to", "copy.counts_back", "ferry.csv")
    assert shell.lines("cqlsh.csv") == shell.lines("ferry.csv")
    r = shell.copy("from", "copy.counts_back", "cqlsh.csv", "--resume", expect=1)
    assert "counters cannot be resumed" in r.stderr


def test_hostile_rows_cost_only_themselves(shell, origin):
    """Broken quotes, NUL, wrong UTF-8, ten megabytes, missing fields, refused by the server: number and reason, the others get in."""
    rows = [b'a,1,1,s,good 1', b'a,1,2,s,"never closed', b'a,1,3,s,good 2', b'a,1,x,s,v', b'a,1,4,s', b'a,1,5,s,\xff\xfe', b'a,1,6,s,n\0l',
            b'a,1,7,s,"' + b"x" * 10_000_000 + b'"', b',1,8,s,v', b'a,1,9,s,"two\nlines"', b'', b'a,1,99999999999,s,v', b'a,1,10,s,good 3']
    with open(shell.path("in.csv"), "wb") as f:
        f.write(b"\n".join(rows) + b"\n")
    r = shell.copy("from", "copy.rows(a,b,c,st,v)", "in.csv", "--maxbatchsize", "20", expect=3)
    assert "4 rows imported from 1 files" in r.stdout and "Failed to process 8 rows" in r.stderr
    got = dict(origin.run("SELECT c, v FROM copy.rows"))
    assert got == {1: "good 1", 3: "good 2", 9: "two\nlines", 10: "good 3"}
    with open(shell.path("import_copy_rows.err.reasons"), encoding="utf-8") as f:
        reasons = f.read().splitlines()
    assert sorted(int(x.split()[1].rstrip(",")) for x in reasons) == [2, 4, 5, 6, 7, 8, 9, 11]
    for number, line, word in ((2, 2, "never closed"), (4, 4, "not an integer"), (5, 5, "Invalid row length 4 should be 5"), (6, 6, "UTF-8"),
                               (7, 7, "NUL"), (8, 8, "8 MiB"), (9, 9, "null value for primary key column 'a'"), (11, 13, "range of the type")):
        assert any(x.startswith(f"row {number}, line {line} of in.csv: ") and word in x for x in reasons), (number, reasons)
    assert os.stat(shell.path("import_copy_rows.err")).st_mode & 0o077 == 0
    # A row that the server alone can refuse does not take its batch along.
    with open(shell.path("in.csv"), "wb") as f:
        f.write(b"\n".join([b"b,2,%d,s,v" % i for i in range(30)] + [b"k" * 66000 + b",2,2,s,v"]))
    r = shell.copy("from", "copy.rows(a,b,c,st,v)", "in.csv", expect=3)
    assert "30 rows imported" in r.stdout and "row 31, line 31" in r.stderr


def test_options_of_from_and_to(shell, origin):
    with open(shell.path("many.csv"), "w", encoding="utf-8") as f:
        f.write("".join(f"{i};row {i};skipped;{i * 2}\n" for i in range(2000)))
    r = shell.copy("from", "copy.many(id,a,extra,b)", "many.csv", "--with", "DELIMITER=';' AND SKIPCOLS='extra' AND SKIPROWS=100 AND MAXROWS=1100",
                   "--chunksize", "70", "--ttl", "5000", "--ratefile", "rate")
    assert "1000 rows imported from 1 files" in r.stdout and "(100 skipped)" in r.stdout
    assert origin.run("SELECT count(*) FROM copy.many")[0][0] == 1000
    assert 4000 < origin.run("SELECT ttl(a) AS t FROM copy.many WHERE id = 500")[0][0] <= 5000
    assert "Processed: 1000 rows" in open(shell.path("rate"), encoding="utf-8").read()
    shell.copy("to", "copy.many(id,b)", "part.csv", "--maxoutputsize", "300", "--header", "--pagesize", "70")
    counts = [len(open(shell.path(n), "rb").read().splitlines()) for n in ("part.csv", "part.csv.1", "part.csv.2", "part.csv.3")]
    assert counts == [301, 300, 300, 100]
    token = origin.run("SELECT token(id) AS t FROM copy.many WHERE id = 700")[0][0]
    shell.copy("to", "copy.many(id)", "low.csv", "--endtoken", str(token))
    shell.copy("to", "copy.many(id)", "high.csv", "--begintoken", str(token))
    low, high = shell.lines("low.csv")[1:], shell.lines("high.csv")[1:]
    assert b"700" in low and b"700" not in high and len(set(low) | set(high)) == 1000 == len(low) + len(high)
    # Standard input and output; cqlshrc's sections.
    os.makedirs(shell.path(".cassandra"))
    with open(shell.path(".cassandra/cqlshrc"), "w", encoding="utf-8") as f:
        f.write("[copy]\ndelimiter = ;\n[copy-to]\nheader = true\n[copy-to:copy.many]\nnull = -\n")
    out = shell.copy("to", "copy.many(id,a,b)", "-").stdout
    assert out.startswith("id;a;b\r\n") and len(out.splitlines()) == 1001
    r = shell.copy("from", "copy.many_back(id,a,b)", "-", "--header", stdin=out.encode())
    assert "1000 rows imported from 1 files" in r.stdout
    assert sorted(origin.run("SELECT id, a, b FROM copy.many_back")) == sorted(origin.run("SELECT id, a, b FROM copy.many"))


def test_ends_that_cannot_take_it(shell, origin):
    """A full disk, a reader that has gone, files that are none: a reason and status 1; an empty one: nothing."""
    with open(shell.path("in.csv"), "w", encoding="utf-8") as f:
        f.write("".join(f"{i},{'y' * 100},{i}\n" for i in range(3000)))
    shell.copy("from", "copy.many(id,a,b)", "in.csv")
    assert "No space left on device" in shell.copy("to", "copy.many", "/dev/full", "--progress", "p", expect=1).stderr
    with subprocess.Popen(shell.command("to", "copy.many", "-"), env=shell.env, cwd=shell.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        p.stdout.close()
        assert b"cannot write to standard output" in p.stderr.read() and p.wait(30) == 1
    os.mkdir(shell.path("directory"))
    assert "Is a directory" in shell.copy("from", "copy.many(id,a,b)", "directory", expect=1).stderr
    for text in ("", "\n\n", "id,a,b\n"):
        with open(shell.path("empty.csv"), "w", encoding="utf-8") as f:
            f.write(text)
        assert "0 rows imported from 1 files" in shell.copy("from", "copy.many(id,a,b)", "empty.csv", *(["--header"] if text.strip() else [])).stdout
    with open(shell.path("end.csv"), "wb") as f:
        f.write(b"1,no line end,1")
    assert "1 rows imported" in shell.copy("from", "copy.many(id,a,b)", "end.csv").stdout


def test_wrong_words(shell):
    for args, status, text in (
            (["to", "copy.types"], 2, "to|from KEYSPACE.TABLE"),
            (["-e", "COPY copy.types TO STDIN"], 2, "'file' or STDOUT expected"),
            (["to", "copy.types", "x", "--connectionmode", "fallback"], 1,
             "Invalid CONNECTIONMODE: fallback. Must be 'auto', 'direct', or 'proxy'"),
            (["to", "copy.nothing", "x"], 1, "there is no table copy.nothing"),
            (["to", "copy.types(nothing)", "x"], 1, "Invalid column name nothing"),
            (["from", "copy.types(a)", "x"], 1, "Primary key column 'id' missing or skipped"),
            (["from", "copy.types", "nowhere.csv"], 1, "no matching file found"),
            (["to", "copy.types", "/nonexistent/x"], 1, "for writing"),
            (["to", "copy.types", "x", "--with", "COLOUR='red'"], 1, "Unrecognized COPY option: COLOUR"),
            (["to", "copy.types", "x", "--ssl"], 1, "does certfile in [ssl] hold the CA")):
        assert text in shell.copy(*args, expect=status).stderr
    r = subprocess.run([lab.BINARY, "copy", "to", "copy.types", "x", "--host", shell.cluster.address, "-u", "nobody", "-p", "no"], env=shell.env,
                       cwd=shell.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert r.returncode == 1 and "incorrect" in r.stderr, r.stderr


def write_rc(shell, **ssl):
    with open(shell.path("cqlshrc"), "w", encoding="utf-8") as f:
        f.write("[connection]\nssl = true\n[ssl]\n" + "".join(f"{k} = {v}\n" for k, v in ssl.items()))
    return ["--cqlshrc", shell.path("cqlshrc")]


def test_tls_as_cqlshrc_has_it(shell, origin):
    """Every connection of a copy is encrypted, as the server sees it."""
    origin.run("TRUNCATE copy.many_back")
    rc = write_rc(shell, certfile=tlslab.CA)
    with subprocess.Popen(shell.command("from", "copy.many_back(id,a,b)", "-", *rc), env=shell.env, cwd=shell.directory, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        p.stdin.write("".join(f"{i},a{i},{i}\n" for i in range(6000)).encode())
        p.stdin.flush()

        def encrypted():
            return {ssl for driver, ssl in origin.run("SELECT driver_name, ssl_enabled FROM system_views.clients") if driver == "cqlferry copy"}

        lab.wait_until(encrypted, 20, "connections of the copy", step=0.2)
        assert encrypted() == {True}
        out, err = p.communicate(timeout=60)
    assert p.returncode == 0 and b"6000 rows imported" in out, err
    r = shell.copy("to", "copy.many_back(id,a,b)", "tls.csv", "--connectionmode", "direct", *rc)
    assert "6000 rows exported" in r.stdout and r.stderr == ""
    assert shell.lines("tls.csv")[1:] == sorted(b"%d,a%d,%d" % (i, i, i) for i in range(6000))


def test_whom_tls_trusts(shell, target):
    """The target wants a certificate of whoever speaks TLS."""
    def roles(expect, text, **ssl):
        r = shell.copy("to", "system_auth.roles(role,is_superuser)", "-", *write_rc(shell, **ssl), expect=expect, host=target.address)
        assert text in (r.stderr if expect else r.stdout), r.stderr
        return r.stderr

    ours = {"usercert": tlslab.CLIENT[0], "userkey": tlslab.CLIENT[1]}
    roles(0, "cassandra,True", certfile=tlslab.CA, **ours)
    roles(1, "certificate of ours", certfile=tlslab.CA)
    roles(1, "is not trusted", certfile=tlslab.own_ca(shell.directory)[0], **ours)
    roles(1, "is not trusted", **ours)
    roles(1, "userkey in [ssl] needs a usercert", userkey=ours["userkey"])
    roles(1, "nowhere.pem", certfile=shell.path("nowhere.pem"), **ours)
    assert "whoever answers is taken for the cluster" in roles(0, "cassandra,True", validate="false", **ours)
    shell.env["SSL_CERTFILE"] = tlslab.CA
    roles(0, "cassandra,True", certfile=shell.path("nowhere.pem"), **ours)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_copy_goes_on(shell, origin, number):
    """An end in the middle, both ways: --resume completes it, and the file has each row once."""
    with open(shell.path("in.csv"), "w", encoding="utf-8") as f:
        f.write("bad,row,1\n1,bad,\xfe\n" + "".join(f"{i},{'x' * 40} {i},{i}\n" for i in range(30000)))
    origin.run("TRUNCATE copy.many")
    progress = shell.path("progress")
    rate, size = shell.path("rate"), lambda: os.path.exists(shell.path("out.csv")) and os.path.getsize(shell.path("out.csv"))
    for args, slow in ((["from", "copy.many(id,a,b)", "in.csv", "--chunksize", "500"], ["--ingestrate", "6000"]),
                       (["to", "copy.many(id,a,b)", "out.csv", "--pagesize", "5"], ["--maxrequests", "1", "--numprocesses", "1"])):
        with subprocess.Popen(shell.command(*args, *slow, "--progress", progress, "--ratefile", rate), env=shell.env, cwd=shell.directory,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            # A killed one has written more than it had time to note.
            lab.wait_until(lambda: os.path.exists(progress) or p.poll() is not None, 20, "a progress file", step=0.01)
            noted, before = os.path.exists(progress), size()
            if args[0] == "to" and noted:
                lab.wait_until(lambda: size() > before + 5000 or p.poll() is not None, 20, "more rows", step=0.01)
            p.send_signal(number)
            out = p.communicate(timeout=30)
        assert noted and p.returncode != 0, "it was done before the signal came"
        if number == signal.SIGTERM:
            assert p.returncode == 1 and b"--resume goes on" in out[1], out
        else:
            assert p.returncode == -signal.SIGKILL
        with open(progress, encoding="utf-8") as f:
            state = f.read()
        for damage in ('"rows":', '"offset":'):
            with open(progress, "w", encoding="utf-8") as f:
                f.write(state.replace(damage, damage + "-", 1))
            assert "start without --resume" in shell.copy(*args, "--resume", "--progress", progress, expect=1).stderr
        with open(progress, "w", encoding="utf-8") as f:
            f.write(state)
        r = shell.copy(*args, "--resume", "--progress", progress, expect=3 if args[0] == "from" else 0)
        assert "30000 rows " in r.stdout and not os.path.exists(progress)
        assert args[0] == "to" or "Failed to process 2 rows" in r.stderr, "those of the first run are not forgotten"
    with open(shell.path("in.csv"), "rb") as f:
        assert sorted(f.read().split(b"\n")[2:]) == shell.lines("out.csv")
    r = shell.copy("to", "copy.many(id,a,b)", "out.csv", "--resume", expect=1)
    assert "nothing to resume" in r.stderr


def test_a_resumed_copy_may_have_other_pages(shell, origin):
    """SIGKILL within a page of 3 MB, part of which is written; it goes on with pages of 100 rows."""
    rows = sorted(b"%d,%s" % (i, b"w" * 1000) for i in range(3000))
    origin.run("TRUNCATE copy.rows")
    shell.copy("from", "copy.rows(a,b,c,v)", "-", stdin=b"".join(b"one,1,%s\n" % r for r in rows))
    command, pipe = ["to", "copy.rows(c,v)", "out.csv", "--progress", "p"], shell.path("out.csv")
    os.mkfifo(pipe)
    got = b""
    with subprocess.Popen(shell.command(*command, "--pagesize", "3000", "--numprocesses", "1", "--maxrequests", "1"), env=shell.env,
                          cwd=shell.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p, open(pipe, "rb", buffering=0) as f:
        def within():
            nonlocal got
            got += f.read(20_000)
            if os.path.exists(shell.path("p")):
                with open(shell.path("p"), encoding="utf-8") as state:
                    return any(r["written"] for r in json.load(state)["ranges"])
            return False

        lab.wait_until(within, 20, "a part of a page", step=0.05)
        p.kill()
        p.wait(10)
        got += f.read()
    assert 0 < len(got) < 2_900_000
    os.unlink(pipe)
    with open(pipe, "wb") as f:
        f.write(got)
    r = shell.copy(*command, "--pagesize", "100", "--resume")
    assert "3000 rows exported" in r.stdout and shell.lines("out.csv") == [b""] + rows


def test_ingestrate_and_limits_of_errors(shell, origin):
    """INGESTRATE holds back; MAXPARSEERRORS and MAXINSERTERRORS stop with status 1, and what was read until then is in."""
    origin.run("TRUNCATE copy.many")
    with open(shell.path("in.csv"), "w", encoding="utf-8") as f:
        f.write("".join(f"{i},row,{i}\n" for i in range(4000)))
    begin = time.time()
    shell.copy("from", "copy.many(id,a,b)", "in.csv", "--ingestrate", "2000", "--chunksize", "100", "--ratefile", "rate", "--reportfrequency", "0.2")
    assert time.time() - begin > 1.9
    with open(shell.path("rate"), encoding="utf-8") as f:
        counts = [int(x.split()[1]) for x in f]
    assert len(counts) > 4 and counts == sorted(counts) and counts[-1] == 4000, counts
    assert origin.run("SELECT count(*) FROM copy.many")[0][0] == 4000
    with open(shell.path("bad.csv"), "w", encoding="utf-8") as f:
        f.write("".join(f"{i},row,{'x' if i % 10 == 9 else i}\n" for i in range(4000)))
    r = shell.copy("from", "copy.many(id,a,b)", "bad.csv", "--maxparseerrors", "20", "--chunksize", "50", "--numprocesses", "1", expect=1)
    assert "Exceeded maximum number of parse errors 20" in r.stderr
    with open(shell.path("bad.csv"), "wb") as f:
        f.write(b"".join(b"%s,1,%d,s,v\n" % (b"k" * 66000, i) for i in range(40)))  # keys that only the server refuses
    r = shell.copy("from", "copy.rows(a,b,c,st,v)", "bad.csv", "--maxinserterrors", "10", "--errfile", "inserts", expect=1)
    assert "Exceeded maximum number of insert errors 10" in r.stderr and "\n0 rows imported" in r.stdout, r.stdout
    with open(shell.path("inserts.reasons"), encoding="utf-8") as f:
        assert "Key length of 66004 is longer than maximum of 65535" in f.read()


@pytest.fixture
def ghost(origin, pods):
    """A row of system.peers_v2 of a replica that does not exist: as in a cluster whose nodes have addresses from elsewhere."""
    address = "10.77.9.9"
    dc = origin.run("SELECT data_center FROM system.local")[0][0]
    origin.run(f"INSERT INTO system.peers_v2 (peer, peer_port, native_address, native_port, data_center, rack, host_id, tokens, release_version, "
               f"schema_version) VALUES ('{address}', 7000, '{address}', 9042, '{dc}', 'rack1', "
               "11111111-2222-3333-4444-555555555555, {'1000'}, '5.0.9', 11111111-2222-3333-4444-555555555555)")
    yield address
    origin.run(f"DELETE FROM system.peers_v2 WHERE peer = '{address}' AND peer_port = 7000")


WARNING = """Warning: Cannot connect directly to replica nodes.
Falling back to proxy mode through control host (slower but functional).
Hint: Use CONNECTIONMODE='proxy' to suppress this warning."""


@pytest.mark.parametrize("how", ["drop", "reject"])
def test_replicas_that_cannot_be_reached(shell, origin, pods, ghost, how):
    """auto falls back with the document's warning and costs one time-out; direct fails with its error; proxy asks nobody."""
    where = pods[0].command([])
    # Nobody answers for the address (drop), or the pod's own routes refuse it at once.
    if how == "reject":
        pods[0].run(["ip", "route", "add", "unreachable", ghost + "/32"])
    try:
        shell.cqlsh("TRUNCATE copy.many")
        with open(shell.path("in.csv"), "w", encoding="utf-8") as f:
            f.write("".join(f"{i},row,{i}\n" for i in range(1000)))
        begin = time.time()
        r = shell.copy("from", "copy.many(id,a,b)", "in.csv", "--connect-timeout", "2", prefix=where)
        assert time.time() - begin < 12
        assert r.stderr.count(WARNING) == 1
        assert r.stderr.count("[INFO] COPY connection fallback: replica 10.77.9.9:9042 unreachable, using control host 10.77.1.1:9042") == 1
        r = shell.copy("to", "copy.many(id,a,b)", "out.csv", "--connect-timeout", "2", prefix=where)
        assert "1000 rows exported" in r.stdout and r.stderr.count(WARNING) == 1
        r = shell.copy("to", "copy.many", "no.csv", "--connectionmode", "direct", "--connect-timeout", "2", prefix=where, expect=1)
        assert "Error: Cannot connect to replica node 10.77.9.9:9042" in r.stderr
        assert "Hint: Try CONNECTIONMODE='auto' or CONNECTIONMODE='proxy' to route through the control connection." in r.stderr
        assert not os.path.exists(shell.path("no.csv"))
        begin = time.time()
        r = shell.copy("to", "copy.many(id,a,b)", "proxy.csv", "--proxy-mode", "--connect-timeout", "30", prefix=where)
        assert time.time() - begin < 10 and "Note: Running in proxy mode." in r.stderr and "Warning" not in r.stderr
        assert shell.lines("out.csv") == shell.lines("proxy.csv")
    finally:
        if how == "reject":
            pods[0].run(["ip", "route", "del", "unreachable", ghost + "/32"])


def test_memory_is_bounded(shell, origin):
    """Rows of 1 KB, and rows of 1 MB, both ways, in 64 MiB."""
    with open(shell.path("in.csv"), "w", encoding="utf-8") as f:
        for i in range(30000):
            f.write(f"{i},{'y' * 1000},{i}\n")
        for i in range(20):
            f.write(f"{100000 + i},{'z' * 1000000},{i}\n")
    origin.run("TRUNCATE copy.many")
    for args in (["from", "copy.many(id,a,b)", "in.csv"], ["to", "copy.many(id,a,b)", "out.csv"]):
        with subprocess.Popen(shell.command(*args), env=shell.env, cwd=shell.directory, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as p:
            peak = 0  # ru_maxrss would count what this process had when it forked
            while p.poll() is None:
                peak = max(peak, peak_kib(p.pid))
                time.sleep(0.02)
            assert p.returncode == 0, p.stderr.read()
        assert 0 < peak < 64 * 1024, f"{args[0]}: {peak} KiB"
    with open(shell.path("in.csv"), "rb") as f:
        assert sorted(f.read().split(b"\n")) == shell.lines("out.csv")
