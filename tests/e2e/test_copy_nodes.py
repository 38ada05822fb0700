# SPDX-License-Identifier: Apache-2.0
"""`cqlferry copy` and a cluster of two real nodes: behind an SNI proxy, a policy, a tunnel, a load balancer; and a node that goes away."""
import os
import random
import subprocess
import time
from contextlib import contextmanager

import lab
import pytest
import tlslab
from copyshell import Shell, peak_kib

WARNING = "Warning: Cannot connect directly to replica nodes."
ROWS = 8000


@pytest.fixture(scope="module")
def pair():
    """Keyspace `one` has each row on one of the nodes, `two` on both. What a node has acknowledged a SIGKILL does not take from it."""
    cluster = lab.Cassandra("pair", 7, 2, options=("--tls", "optional-mutual", "--set", "commitlog_sync: batch", "--set", "commitlog_sync_period: 0ms"))
    try:
        cluster.start()
        cluster.wait()
        for name, factor in (("one", 1), ("two", 2)):
            cluster.run(f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {factor}}}",
                        f"CREATE TABLE {name}.t (id int PRIMARY KEY, a text, b int)", f"CREATE TABLE {name}.back (id int PRIMARY KEY, a text, b int)")
        yield cluster
    finally:
        cluster.save_logs()
        for i in range(len(cluster.nodes)):
            cluster.stop(i, kill=True)


@pytest.fixture
def shell(pair, tmp_path):
    return Shell(pair, tmp_path)


def write_file(shell, rows, name="in.csv", words=4):
    random.seed(rows)
    with open(shell.path(name), "w", encoding="utf-8", newline="") as f:
        for i in range(rows):
            f.write(f"{i},{' '.join(str(random.random()) for _ in range(words))},{i % 1000}\r\n")
    return name


@contextmanager
def policy(pod, addresses, verdict="drop"):
    """What a network policy does to a pod's packets to other pods."""
    rules = "table inet lab_policy {\n chain out {\n  type filter hook output priority 0;\n" + "".join(
        f"  ip daddr {a} {verdict}\n" for a in addresses) + " }\n}\n"
    subprocess.run(pod.command(["nft", "-f", "-"]), input=rules, text=True, check=True)
    try:
        yield
    finally:
        pod.run(["nft", "delete", "table", "inet", "lab_policy"])


def seen(cluster, index):
    """{(client's address, by TLS)} of the copies that this very node serves."""
    r = subprocess.run([lab.CASSANDRA, "nodetool", cluster.nodes[index][0], "clientstats", "--all"], stdout=subprocess.PIPE, text=True, check=True)
    rows = [line for line in r.stdout.splitlines() if "cqlferry" in line]
    return {(row.split()[0].split(":")[0].strip("/"), "true" in row) for row in rows}


# ---- Astra

@pytest.fixture
def astra(pair, pods, tmp_path):
    """The nodes behind HAProxy; the pod that copies cannot reach them otherwise."""
    with tlslab.names(pods[2].address), policy(pods[0], pair.addresses):
        stand_in = tlslab.Astra(pair, str(tmp_path), pods[2])
        try:
            yield stand_in
        finally:
            stand_in.close()


def watched(pair, command, shell, data=None):
    """Runs it with a pipe for its file, and goes on only when both nodes have seen it: which connections, its output, its words."""
    found, half = [set(), set()], len(data or b"") // 2

    def both():
        for i in (0, 1):
            found[i] |= seen(pair, i)
        return all(found) or p.poll() is not None

    with subprocess.Popen(command, env=shell.env, cwd=shell.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        if data:
            p.stdin.write(data[:half])
            p.stdin.flush()
        lab.wait_until(both, 60, "connections to both nodes", step=0.2)
        out, err = p.communicate(data[half:] if data else None, timeout=120)
    assert p.returncode == 0, err
    return found, out.decode(), err.decode()


@pytest.mark.quick
def test_copy_from_astra(shell, pair, pods, astra):
    """By the bundle alone: through the proxy to both nodes, encrypted, in proxy mode unless a mode is named."""
    pair.run("TRUNCATE one.t")
    write_file(shell, ROWS)
    pod = pods[0].command([])
    r = shell.copy("from", "one.t", "in.csv", "--connect-timeout", "1", prefix=pod, expect=1)
    assert "timed out" in r.stderr, "the nodes themselves cannot be reached"
    with open(shell.path("in.csv"), "rb") as f:
        found, out, err = watched(pair, pod + shell.command("from", "one.t(id,a,b)", "-", "-b", astra.bundle, "--chunksize", "50", host=""), shell, f.read())
    assert found == [{(astra.pod.address, True)}] * 2, found
    assert "[INFO] Cloud cluster detected, using proxy mode" in err and "Note: Running in proxy mode." in err
    assert f"{ROWS} rows imported from 1 files" in out
    for more in (["--connectionmode", "direct"], ["--with", "CONNECTIONMODE='auto'"]):
        pair.run("TRUNCATE one.back")
        r = shell.copy("from", "one.back(id,a,b)", "in.csv", "-b", astra.bundle, *more, host="", prefix=pod)
        assert r.stderr == "" and f"{ROWS} rows imported" in r.stdout, r.stderr
    for table in ("t", "back"):
        assert pair.run(f"SELECT count(*) FROM one.{table}")[0][0] == ROWS


@pytest.mark.quick
def test_copy_to_astra(shell, pair, pods, astra):
    """The same the other way round; the bundle from cqlshrc, and a host id of one's own without a bundle."""
    write_file(shell, ROWS)
    shell.copy("from", "one.t(id,a,b)", "in.csv")
    pod, expected = pods[0].command([]), shell.lines("in.csv")
    found, out, err = watched(pair, pod + shell.command("to", "one.t(id,a,b)", "-", "-b", astra.bundle, "--numprocesses", "2", host=""), shell)
    assert found == [{(astra.pod.address, True)}] * 2, found
    assert "Cloud cluster detected" in err and sorted(out.encode().split(b"\r\n")) == expected
    for mode in ("direct", "auto"):  # each range at a node that has it, by its host id
        r = shell.copy("to", "one.t(id,a,b)", "out.csv", "-b", astra.bundle, "--connectionmode", mode, host="", prefix=pod)
        assert r.stderr == "" and shell.lines("out.csv") == expected, r.stderr
    with open(shell.path("cqlshrc"), "w", encoding="utf-8") as f:
        f.write(f"[connection]\nsecure_connect_bundle = {astra.bundle}\n")
    r = shell.copy("to", "one.t(id,a,b)", "rc.csv", "--cqlshrc", shell.path("cqlshrc"), host="", prefix=pod)
    assert "Cloud cluster detected" in r.stderr and shell.lines("rc.csv") == expected
    # Whoever has no bundle names a node that the proxy knows.
    with open(shell.path("cqlshrc"), "w", encoding="utf-8") as f:
        f.write(f"[ssl]\ncertfile = {tlslab.CA}\nusercert = {tlslab.CLIENT[0]}\nuserkey = {tlslab.CLIENT[1]}\n")
    to = ["--cqlshrc", shell.path("cqlshrc"), "--port", str(astra.proxy.port), "--sni"]
    r = shell.copy("to", "one.t(id,a,b)", "sni.csv", *to, list(astra.ids)[1], host="db.cqlferry.test", prefix=pod)
    assert "[INFO] SNI endpoint detected, using proxy mode" in r.stderr and shell.lines("sni.csv") == expected
    r = shell.copy("to", "one.t(id,a,b)", "sni.csv", *to, list(astra.ids)[1], "--connectionmode", "direct", host="db.cqlferry.test", prefix=pod)
    assert r.stderr == "" and shell.lines("sni.csv") == expected


@pytest.mark.quick
def test_a_bundle_that_does_not_help(shell, pair, astra):
    """Each with its reason; and a node that the service still names but the proxy cannot reach is passed over."""
    for args, host, text in (
            (["-b", shell.path("nowhere.zip")], "", "nowhere.zip"),
            (["-b", astra.proxy.path], "", "is not a zip file"),
            (["-b", astra.bundle], pair.address, "leave out --host"),
            (["-b", astra.bundle, "--sni", "x"], "", "leave out --sni")):
        assert text in shell.copy("to", "one.t", "-", *args, host=host, expect=1).stderr
    astra.metadata.status = 503
    assert "HTTP status 503" in shell.copy("to", "one.t", "-", "-b", astra.bundle, host="", expect=1).stderr
    astra.metadata.status = 200
    gone = "99999999-0000-4000-8000-000000000000"
    points = astra.metadata.answer["contact_info"]["contact_points"]
    astra.metadata.answer["contact_info"]["contact_points"] = [gone] + points
    try:
        write_file(shell, ROWS)
        r = shell.copy("from", "one.back(id,a,b)", "in.csv", "-b", astra.bundle, "--connect-timeout", "2", host="")
        assert f"{ROWS} rows imported" in r.stdout
        shell.copy("to", "one.back(id,a,b)", "out.csv", "-b", astra.bundle, "--connect-timeout", "2", host="")
        assert shell.lines("out.csv") == shell.lines("in.csv")
    finally:
        astra.metadata.answer["contact_info"]["contact_points"] = points


# ---- policies, tunnels, load balancers

@pytest.mark.quick
@pytest.mark.parametrize("verdict", ["drop", "reject with icmpx type admin-prohibited", "reject with tcp reset"])
def test_copy_k8s_restricted(shell, pair, pods, verdict):
    """A policy lets the pod reach the first node alone; half of the rows lie on the other."""
    pair.run("TRUNCATE one.t")
    pod, second = pods[0].command([]), pair.addresses[1]
    write_file(shell, ROWS)
    with policy(pods[0], [second], f"meta l4proto tcp {verdict}" if "tcp reset" in verdict else verdict):
        begin = time.time()
        r = shell.copy("from", "one.t(id,a,b)", "in.csv", "--connect-timeout", "2", prefix=pod)
        assert time.time() - begin < 30
        assert r.stderr.count(WARNING) == 1 and f"{ROWS} rows imported" in r.stdout
        assert r.stderr.count(f"[INFO] COPY connection fallback: replica {second}:9042 unreachable, using control host {pair.address}:9042") == 1
        r = shell.copy("to", "one.t(id,a,b)", "out.csv", "--connect-timeout", "2", prefix=pod)
        assert r.stderr.count(WARNING) == 1 and shell.lines("out.csv") == shell.lines("in.csv")
        for direction, name in (("to", "direct.csv"), ("from", "in.csv")):
            r = shell.copy(direction, "one.t(id,a,b)", name, "--connectionmode", "direct", "--connect-timeout", "2", prefix=pod, expect=1)
            assert f"Error: Cannot connect to replica node {second}:9042" in r.stderr
        r = shell.copy("to", "one.t(id,a,b)", "proxy.csv", "--proxy-mode", prefix=pod)
        assert "Warning" not in r.stderr and shell.lines("proxy.csv") == shell.lines("in.csv")


class Tunnel:
    """OpenSSH: a port on the pod's own loopback that leads through a bastion to one node."""

    def __init__(self, directory, pod, bastion, to):
        self.directory = directory
        for name in ("host", "me"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(directory, name)], check=True)
        os.makedirs("/run/sshd", exist_ok=True)
        with open(os.path.join(directory, "sshd_config"), "w", encoding="utf-8") as f:
            f.write(f"ListenAddress {bastion.address}:2222\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/me.pub\nStrictModes no\n"
                    f"UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\nUseDNS no\nLogLevel VERBOSE\n")
        self.log = open(os.path.join(directory, "ssh.log"), "wb")
        self.server = bastion.start(["/usr/sbin/sshd", "-D", "-e", "-f", os.path.join(directory, "sshd_config")], stdout=self.log, stderr=self.log)
        listening = ["bash", "-c", ": <>/dev/tcp/$0/$1"]
        lab.wait_until(lambda: pod.run([*listening, bastion.address, "2222"], check=False).returncode == 0, 15, self.words, step=0.2)
        self.client = pod.start(["ssh", "-F", "none", "-N", "-L", f"127.0.0.1:19042:{to}:9042", "-p", "2222", "-i", os.path.join(directory, "me"),
                                 "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
                                 f"root@{bastion.address}"], stdout=self.log, stderr=self.log)
        lab.wait_until(lambda: pod.run([*listening, "127.0.0.1", "19042"], check=False).returncode == 0, 15, self.words, step=0.2)

    def words(self):
        return lab.tail(os.path.join(self.directory, "ssh.log"))

    def close(self):
        for p in (self.client, self.server):
            p.terminate()
            p.wait(10)
        self.log.close()


@pytest.mark.quick
def test_copy_ssh_tunnel(shell, pair, pods):
    """Of the whole cluster only the tunnel's end can be reached."""
    pair.run("TRUNCATE one.t")
    write_file(shell, ROWS)
    pod = pods[0].command([])
    tunnel = Tunnel(shell.directory, pods[0], pods[1], pair.address)
    try:
        with policy(pods[0], pair.addresses):
            to = ["--port", "19042", "--connect-timeout", "2"]
            r = shell.copy("from", "one.t(id,a,b)", "in.csv", *to, host="127.0.0.1", prefix=pod)
            assert r.stderr.count(WARNING) == 1 and "using control host 127.0.0.1:19042" in r.stderr and f"{ROWS} rows imported" in r.stdout
            for mode, words in (("auto", WARNING), ("proxy", "Note: Running in proxy mode.")):
                r = shell.copy("to", "one.t(id,a,b)", "out.csv", *to, "--connectionmode", mode, host="localhost", prefix=pod)
                assert words in r.stderr and shell.lines("out.csv") == shell.lines("in.csv")
            r = shell.copy("to", "one.t(id,a,b)", "no.csv", *to, "--connectionmode", "direct", host="127.0.0.1", prefix=pod, expect=1)
            assert "Error: Cannot connect to replica node" in r.stderr
    finally:
        tunnel.close()


class Balancer:
    """HAProxy that hides the nodes behind one address, a connection to each in turn."""

    def __init__(self, directory, pod, addresses, listen="", user="root"):
        path, listen = os.path.join(directory, "balancer.cfg"), listen or f"{pod.address}:9042"
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"global\n  user {user}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
                    f"listen cql\n  bind {listen}\n  balance roundrobin\n" + "".join(f"  server n{i} {a}:9042\n" for i, a in enumerate(addresses)))
        self.process = pod.start(["haproxy", "-db", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        test = ["bash", "-c", ": <>/dev/tcp/" + listen.replace(":", "/")]
        lab.wait_until(lambda: pod.run(test, check=False).returncode == 0, 10, "HAProxy listens", step=0.2)

    def close(self):
        self.process.terminate()
        self.process.wait(10)


def test_copy_mesh_sidecar(shell, pair, pods):
    """Every connection of the pod to port 9042 ends in its sidecar, which sends it to a node of its own choice. To auto all is reachable."""
    rules = """table ip lab_mesh {
 chain out {
  type nat hook output priority -100
  tcp dport 9042 meta skuid != haproxy redirect to :15001
 }
}
"""
    write_file(shell, ROWS)
    pair.run("TRUNCATE one.t")
    sidecar = Balancer(shell.directory, pods[0], pair.addresses, listen="127.0.0.1:15001", user="haproxy")
    subprocess.run(pods[0].command(["nft", "-f", "-"]), input=rules, text=True, check=True)
    try:
        for direction, name in (("from", "in.csv"), ("to", "out.csv")):
            r = shell.copy(direction, "one.t(id,a,b)", name, prefix=pods[0].command([]))
            assert r.stderr == "" and f"{ROWS} rows " in r.stdout
    finally:
        pods[0].run(["nft", "delete", "table", "ip", "lab_mesh"])
        sidecar.close()
    assert shell.lines("out.csv") == shell.lines("in.csv")


def peaked(shell, command, timeout=240):
    """(seconds, peak memory in KiB, standard error)"""
    begin, peak = time.time(), 0
    with open(shell.path("stderr"), "w+b") as log:
        with subprocess.Popen(command, env=shell.env, cwd=shell.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log) as p:
            while p.poll() is None:
                peak = max(peak, peak_kib(p.pid))
                assert time.time() - begin < timeout
                time.sleep(0.02)
        log.seek(0)
        err = log.read().decode()
    assert p.returncode == 0, err
    return time.time() - begin, peak, err


def test_copy_large_dataset_proxy(shell, pair, pods):
    """150,000 rows, 24 MiB, in and out through a load balancer that hides both nodes: complete, and memory stays small."""
    rows = 150_000
    write_file(shell, rows, words=8)
    balancer = Balancer(shell.directory, pods[2], pair.addresses)
    pair.run("TRUNCATE one.t")
    try:
        with policy(pods[0], pair.addresses):
            for direction, name in (("from", "in.csv"), ("to", "out.csv")):
                command = pods[0].command(shell.command(direction, "one.t(id,a,b)", name, "--proxy-mode", host=pods[2].address))
                seconds, peak, err = peaked(shell, command)
                print(f"{direction}: {rows / seconds:,.0f} rows/s, {peak / 1024:.0f} MiB")
                assert 0 < peak < 64 * 1024 and err.startswith("Note: Running in proxy mode."), err
    finally:
        balancer.close()
    assert shell.lines("out.csv") == shell.lines("in.csv")


# ---- nodes that go away; the last ones, since they leave the cluster with one node

def begun(shell, direction, *args, until):
    """Starts a copy and waits until it is in the middle."""
    p = subprocess.Popen(shell.command(direction, *args), env=shell.env, cwd=shell.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    lab.wait_until(lambda: p.poll() is not None or until(), 60, "some rows", step=0.02)
    assert p.poll() is None, p.communicate()
    return p


def ended(p, words, seconds=120):
    out, err = p.communicate(timeout=seconds)
    assert p.returncode == 0, f"exit {p.returncode}\n{out}\n{err}"
    assert words in out, out
    return err


def size(shell, name):
    try:
        return os.path.getsize(shell.path(name))
    except OSError:
        return 0


def nodes_up(cluster):
    """How many nodes the first one thinks are up."""
    r = subprocess.run([lab.CASSANDRA, "nodetool", cluster.nodes[0][0], "status"], stdout=subprocess.PIPE, text=True, check=True)
    return sum(line.startswith("UN") for line in r.stdout.splitlines())


def test_a_node_that_vanishes_in_the_middle(shell, pair):
    """Its packets are lost and nothing is closed: both ways go on with the other replica once answers are overdue."""
    pair.run("TRUNCATE two.t")
    write_file(shell, 30000)
    quick = ["--connect-timeout", "2"]
    p = begun(shell, "from", "two.t(id,a,b)", "in.csv", "--ingestrate", "6000", "--chunksize", "500", "--requesttimeout", "3", "--ratefile", "rate",
              "--reportfrequency", "0.2", *quick, until=lambda: size(shell, "rate") > 300)
    try:
        pair.unplug(1)
        err = ended(p, "30000 rows imported")
        assert WARNING in err, err
    finally:
        pair.plug(1)
    begin = time.time()
    lab.wait_until(lambda: nodes_up(pair) == 2, 60, "both nodes are up again", step=1)
    print(f"the nodes saw each other after {time.time() - begin:.0f} s")
    shell.copy("to", "two.t(id,a,b)", "all.csv", "--consistency", "ALL")  # what one node missed it gets by this
    assert shell.lines("all.csv") == shell.lines("in.csv"), "no row is lost"
    p = begun(shell, "to", "two.t(id,a,b)", "out.csv", "--pagesize", "10", "--pagetimeout", "3", "--maxrequests", "2", *quick,
              until=lambda: size(shell, "out.csv") > 100_000)
    try:
        pair.unplug(1)
        ended(p, "30000 rows exported")
    finally:
        pair.plug(1)
    assert shell.lines("out.csv") == shell.lines("in.csv"), "no row is lost or doubled"
    lab.wait_until(lambda: nodes_up(pair) == 2, 60, "both nodes are up again", step=1)


@pytest.mark.quick
def test_a_node_that_dies_in_the_middle(shell, pair):
    """SIGKILL both ways. What was acknowledged by the dead node alone is there again when it is."""
    pair.run("TRUNCATE two.t")
    write_file(shell, 40000)
    p = begun(shell, "from", "two.t(id,a,b)", "in.csv", "--ingestrate", "8000", "--chunksize", "500", "--ratefile", "rate", "--reportfrequency", "0.2",
              until=lambda: size(shell, "rate") > 300)
    pair.stop(1, kill=True)
    assert WARNING in ended(p, "40000 rows imported")
    assert not os.path.exists(shell.path("import_two_t.err"))
    pair.restart(1)
    shell.copy("to", "two.t(id,a,b)", "all.csv", "--consistency", "ALL")
    assert shell.lines("all.csv") == shell.lines("in.csv"), "no row is lost"
    for args in (["--pagesize", "10"], ["--pagesize", "5000"]):  # the latter dies inside of pages
        p = begun(shell, "to", "two.t(id,a,b)", "out.csv", "--maxrequests", "1", *args, until=lambda: size(shell, "out.csv") > 200_000)
        pair.stop(1, kill=True)
        err = ended(p, "40000 rows exported")
        assert "will try again" in err or WARNING in err, err
        assert shell.lines("out.csv") == shell.lines("in.csv"), "no row is lost or doubled"
        os.unlink(shell.path("out.csv"))
        if args[1] == "10":
            pair.restart(1)
