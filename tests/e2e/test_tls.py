# SPDX-License-Identifier: Apache-2.0
"""TLS on every side: to real Cassandra nodes, from unmodified drivers, and through a stand-in for Astra."""
import json
import os
import subprocess
import threading

import compare
import lab
import pytest
import rawcql
import tlslab
import workload
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import WhiteListRoundRobinPolicy

pytestmark = pytest.mark.quick

DRIVER = """
import json, ssl, sys
from cassandra.cluster import Cluster
from cassandra.auth import PlainTextAuthProvider
contact, port, keyspace, ca, cert, key = sys.argv[1], int(sys.argv[2]), *sys.argv[3:7]
context = None
if ca:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    if cert:
        context.load_cert_chain(cert, key)
cluster = Cluster([contact], port=port, ssl_context=context, auth_provider=PlainTextAuthProvider("cassandra", "cassandra"),
                  ssl_options={"server_hostname": contact} if ca else None, connect_timeout=10)
session = cluster.connect(keyspace)
insert = session.prepare("INSERT INTO items (id, v, n) VALUES (?, ?, ?)")
for i in range(60):
    session.execute(insert, (f"row{i}", "x" * (i * i * 20), i))
rows = {r.id: (len(r.v), r.n) for r in session.execute("SELECT id, v, n FROM items") if r.id.startswith("row")}
assert rows == {f"row{i}": (i * i * 20, i) for i in range(60)}, rows
peer = cluster.control_connection._connection._socket.getpeercert()["subject"] if ca else None
print(json.dumps({"peer": peer, "seen": [(str(r.address), r.ssl_enabled, r.driver_name) for r in
      session.execute("SELECT address, ssl_enabled, driver_name FROM system_views.clients") if r.driver_name]}))
cluster.shutdown()
"""

DRIVER_NAME = "Apache Cassandra Python Driver"

REFUSED = """
import sys, rawcql
try:
    rawcql.Client(sys.argv[1])
    print("let in")
except rawcql.CqlError as e:
    print(hex(e.code), e.text)
"""


def driver(pod, contact, keyspace, port=9042, ca="", certificate=("", "")):
    return json.loads(pod.python(DRIVER, contact, str(port), keyspace, ca, *certificate).stdout)


@pytest.fixture(scope="module")
def astra():
    """Two nodes of a cluster of its own behind HAProxy; from its first use on they start while other tests of this file run."""
    cluster = lab.Cassandra("astra", 6, 2, options=("--auth", "--tls", "optional-mutual"))
    failure = []

    def start():
        try:
            cluster.start()
            cluster.wait()
        except Exception as e:  # told by whoever needs it
            failure.append(e)

    thread = threading.Thread(target=start)
    thread.start()

    def ready():
        thread.join(240)
        if failure:
            raise failure[0]
        return cluster

    yield ready
    thread.join(240)
    cluster.save_logs()
    for i in range(len(cluster.nodes)):
        cluster.stop(i, kill=True)


@pytest.fixture
def files(tmp_path):
    return str(tmp_path)


def both_clusters():
    return {"origin": {"tls": {"enabled": True, "caFile": tlslab.CA}},
            "target": {"tls": {"enabled": True, "caFile": tlslab.CA, "certFile": tlslab.CLIENT[0], "keyFile": tlslab.CLIENT[1]}}}


# ---- to the clusters

def test_a_plain_client_and_tls_to_both_clusters(make_agent, pod, origin, target, keyspace, equal):
    """The target wants a certificate; it is in a PKCS#12 file with a password. Then everything moves to the target."""
    with open(os.path.join(tlslab.TLS, "password"), "w", encoding="utf-8") as f:
        f.write(tlslab.PASSWORD + "\n")
    config = both_clusters()
    config["target"]["tls"].update(certFile=tlslab.CLIENT_P12, keyPasswordFile=f.name, minVersion="1.3")
    del config["target"]["tls"]["keyFile"]
    agent = make_agent(settings=config)
    agent.phase("mirror")
    load = lab.Load(pod, origin.address, keyspace, prefix="tls", writers=4, rate=10)
    load.wait_running(60)
    assert_by_tls(origin, DRIVER_NAME)
    assert_by_tls(target, "cqlferry mirror")
    agent.phase("cutover")
    load.wait_running(60)
    assert_by_tls(target, DRIVER_NAME)
    stat = load.stop()
    assert stat["errors"] == 0, stat["causes"]
    lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
    equal(keyspace, [load])
    metrics = agent.metrics()
    print({k: v for k, v in metrics.items() if k.startswith("cqlferry_tls")})
    assert metrics['cqlferry_tls_handshakes_total{peer="cluster",result="resumed"}'] > 0
    assert metrics['cqlferry_tls_handshakes_total{peer="cluster",result="failed"}'] == 0
    # Straight to the target they could not go: they speak no TLS.
    agent.phase("finish")
    seen = driver(pod, origin.address, keyspace)["seen"]
    assert {address for address, tls, name in seen if name == DRIVER_NAME} == {lab.NODE_IP}, seen


def test_wrong_credentials_get_the_clusters_own_error(make_agent, pod, origin):
    agent = make_agent(settings=both_clusters())
    agent.phase("mirror")
    with pytest.raises(rawcql.CqlError) as own:  # from the node itself, past the agent
        rawcql.Client(origin.address, user="cassandra", password="wrong")
    out = pod.python(f"""
import rawcql
try:
    rawcql.Client("{origin.address}", user="cassandra", password="wrong")
    print("let in")
except rawcql.CqlError as e:
    print(hex(e.code), e.text)
""").stdout.strip()
    assert out == f"{hex(own.value.code)} {own.value.text}" and own.value.code == 0x100
    assert "wrong" not in agent.log()


def assert_by_tls(cluster, name):
    """Whoever is connected is so by TLS, but for the two plain connections of the one who asks."""
    rows = [(r[0], r[1]) for r in cluster.run("SELECT driver_name, ssl_enabled FROM system_views.clients") if r[0]]
    assert (name, True) in rows, rows
    assert sum(not tls for _, tls in rows) <= 2, rows


@pytest.mark.usefixtures("astra")  # not earlier: two starting nodes would disturb the cutover above
@pytest.mark.parametrize("name, reason", [
    ("expired", "has expired on 20"), ("otherhost", "is not for"), ("stranger", "is not trusted"), ("plain", "does not speak TLS")])
def test_a_bad_certificate_is_refused_with_the_reason(make_agent, pod, origin, files, name, reason):
    """In the log, and in what the client gets for its STARTUP."""
    made = {"expired": lambda: tlslab.certificate(files, "expired", f"IP:{lab.NODE_IP}", days=-1),
            "otherhost": lambda: tlslab.certificate(files, "otherhost", "DNS:other.example"),
            "stranger": lambda: tlslab.certificate(files, "stranger", f"IP:{lab.NODE_IP}", ca=tlslab.own_ca(files))}
    if name == "plain":
        server, contact = None, f"{lab.NODE_IP}:9180"  # the agent's own HTTP port
    else:
        server = tlslab.TlsServer(made[name]())
        contact = f"{lab.NODE_IP}:{server.port}"
    agent = make_agent(ebpf=False, listen={"port": 9042}, http={"address": "0.0.0.0"}, settings={
        "origin": {"contactPoints": [contact], "tls": {"enabled": True, "caFile": tlslab.CA}}})
    try:
        out = pod.python(REFUSED, lab.NODE_IP).stdout
        assert out.startswith("0x0 ") and reason in out and "cannot reach" in out, out
        lab.wait_until(lambda: reason in agent.log(), 5, agent.log)
        assert agent.metrics()['cqlferry_tls_handshakes_total{peer="cluster",result="failed"}'] >= 1
    finally:
        if server:
            server.close()


def test_a_target_that_wants_a_certificate_says_so(make_agent, origin, target):
    config = both_clusters()
    del config["target"]["tls"]["certFile"], config["target"]["tls"]["keyFile"]
    agent = make_agent(settings=config)
    r = agent.phase("mirror", check=False)
    assert r.returncode != 0
    assert "does it want a certificate of ours" in r.stdout + r.stderr, r.stdout + r.stderr


# ---- from clients

def test_clients_tls_ends_here(make_agent, pod, origin, keyspace, equal, files):
    """A driver that checks the origin's certificate and shows one of its own, intercepted, mirrored; and a plain one beside it."""
    crt, key = tlslab.certificate(files, "agent", ",".join(f"IP:{a}" for a in origin.addresses))
    agent = make_agent(listen={"tls": {"certFile": crt, "keyFile": key, "clientCaFile": tlslab.CA, "clientAuth": "required"}}, settings=both_clusters())
    agent.phase("mirror")
    r = driver(pod, origin.address, keyspace, ca=tlslab.CA, certificate=tlslab.CLIENT)
    assert r["peer"] == [[["commonName", "agent"]]], "the agent's certificate, not the node's"
    assert any(a == lab.NODE_IP and tls for a, tls, _ in r["seen"]), r["seen"]
    driver(pod, origin.address, keyspace)
    assert equal(keyspace).rows == 60
    status = agent.metrics()
    assert status["cqlferry_sessions_opaque_total"] == 0
    assert status['cqlferry_tls_handshakes_total{peer="client",result="full"}'] + \
        status['cqlferry_tls_handshakes_total{peer="client",result="resumed"}'] >= 2
    # Without a certificate of its own nobody gets in by TLS.
    bad = pod.python(SHOWN, origin.address, tlslab.CA, check=False)
    assert bad.returncode != 0, bad.stdout
    lab.wait_until(lambda: "showed no certificate" in agent.log(), 5, agent.log)


def test_tls_that_cannot_be_opened_passes_and_is_on_record(make_agent, pod, origin, keyspace):
    """Also where the agent itself would speak TLS with the origin: the client's goes instead of it, not inside."""
    agent = make_agent(settings=both_clusters())
    agent.phase("mirror")
    r = driver(pod, origin.address, keyspace, ca=tlslab.CA)
    assert r["peer"] == [[["commonName", f"lab {origin.address}"]]], "the node's own certificate"
    assert {a for a, _, _ in r["seen"]} == {lab.NODE_IP}, "through the agent"
    assert agent.metric("cqlferry_sessions_opaque_total") > 0
    lab.wait_until(lambda: "opaque" in agent.cli("gaps").stdout, 10, lambda: f"an opaque session in {agent.cli('gaps').stdout}")


# ---- replaced secrets

SHOWN = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(sys.argv[2])
with socket.create_connection((sys.argv[1], 9042), 10) as s, context.wrap_socket(s, server_hostname=sys.argv[1]) as t:
    t.sendall(bytes([4, 0, 0, 1, 5, 0, 0, 0, 0]))  # OPTIONS
    assert t.recv(9)[4] == 6
    print(dict(x[0] for x in t.getpeercert()["subject"])["commonName"])
"""


def test_a_replaced_certificate_is_used_by_the_next_handshake(make_agent, pod, origin, files, keyspace):
    san = f"IP:{origin.address}"
    first, second = tlslab.certificate(files, "first", san), tlslab.certificate(files, "second", san)
    secret = tlslab.Secret(os.path.join(files, "secret"))
    secret.put(crt=first[0], key=first[1])
    agent = make_agent(listen={"tls": {"certFile": secret.file("crt"), "keyFile": secret.file("key")}}, settings=both_clusters())

    def shown():
        return pod.python(SHOWN, origin.address, tlslab.CA).stdout.strip()

    agent.phase("mirror")
    pid = agent.process.pid
    load = lab.Load(pod, origin.address, keyspace, prefix="held", writers=2, rate=20)
    load.wait_running(20)
    assert shown() == "first"
    secret.put(crt=second[0], key=second[1])
    lab.wait_until(lambda: "new certificates are in force" in agent.log(), 5, agent.log)
    assert shown() == "second"
    # A key that does not belong to it: the old ones stay, and that is said loudly, once.
    secret.put(crt=first[0], key=second[1])
    lab.wait_until(lambda: "the new certificates cannot be used, the old ones stay" in agent.log(), 5, agent.log)
    assert shown() == "second"
    secret.put(crt=first[0], key=first[1])
    lab.wait_until(lambda: agent.log().count("new certificates are in force") == 2, 5, agent.log)
    assert shown() == "first"
    assert agent.log().count("the old ones stay") == 1
    stat = load.stop()
    assert stat["errors"] == 0 and stat["longest_ms"] < 2000, stat
    assert agent.alive() and agent.process.pid == pid


def test_doctor_says_what_is_wrong_with_certificates(make_agent, files, origin, target):
    soon, key = tlslab.certificate(files, "soon", "DNS:soon", days=10)
    config = both_clusters()
    config["origin"]["tls"].update(certFile=soon, keyFile=key)
    config["target"]["tls"].update(keyFile=key)
    agent = make_agent(start=False, listen={"tls": {"certFile": os.path.join(files, "missing.pem")}}, settings=config)
    os.chmod(key, 0o644)
    with open(agent.config_path, "w", encoding="utf-8") as f:
        f.write(lab.yaml(agent.config))
    r = subprocess.run([lab.LAB, "node", lab.BINARY, "doctor", "--json", "--config", agent.config_path], stdout=subprocess.PIPE, text=True, timeout=120)
    found = {f["finding"]: f for f in json.loads(r.stdout)["findings"]}

    def finding(*parts):
        for text, f in found.items():
            if all(p in text for p in parts):
                return f
        raise AssertionError(f"no finding with {parts} in:\n" + "\n".join(found))

    assert finding("origin: the certificate of CN=soon expires in ")["grade"] == "warn"
    assert finding("may be read by everyone")["remedy"]
    assert finding("target: the key in", "does not belong to a certificate")["grade"] == "fail"
    assert finding("listen:", "missing.pem", "No such file")["grade"] == "fail"
    assert "TLSv1.3" in finding(f"origin {origin.address} port 9042: TLS")["finding"]
    assert all(f.get("remedy") for f in found.values() if f["grade"] in ("warn", "fail"))


# ---- Astra

@pytest.fixture
def names():
    with tlslab.names():
        yield


def clients_by_tls(address):
    """(address, driver) of those that this very node serves."""
    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([address]), request_timeout=60)
    cluster = Cluster([address], auth_provider=PlainTextAuthProvider(lab.USER, lab.PASSWORD), protocol_version=5, connect_timeout=20,
                      execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    try:
        rows = cluster.connect().execute("SELECT address, driver_name, ssl_enabled FROM system_views.clients")
        return [(str(r[0]), r[1]) for r in rows if r[2] and r[1]]
    finally:
        cluster.shutdown()


def test_astra_by_its_bundle(astra, make_agent, pod, origin, keyspace, names, files):
    """Mirroring to two nodes that are known by their host ids alone, then everything moves there."""
    cluster = astra()
    cluster.run(*workload.schema(keyspace))
    stand_in = tlslab.Astra(cluster, files, lab.Pod("proxy", "10.77.0.60"))
    metadata, proxy_pod = stand_in.metadata, stand_in.pod
    assert len(stand_in.ids) == 2
    try:
        agent = make_agent(settings={"target": {"contactPoints": [], "secureConnectBundle": stand_in.bundle}})
        assert metadata.asked == 1
        said = agent.phase("mirror")
        assert "which sessions the target could carry is not known" not in said.stdout + said.stderr, said
        load = lab.Load(pod, origin.address, keyspace, prefix="astra", writers=4, rate=10)
        load.wait_running(80)
        agent.phase("cutover")
        load.wait_running(80)
        seen = [(address, *who) for address in cluster.addresses for who in clients_by_tls(address)]
        print(f"{len(seen)} connections by TLS: {sorted(set(seen))}")
        assert {node for node, _, _ in seen} == set(cluster.addresses), "both nodes are used"
        assert {client for _, client, _ in seen} == {proxy_pod.address}, "all by the proxy"
        assert {name for _, _, name in seen} >= {"cqlferry mirror", DRIVER_NAME}
        stat = load.stop()
        assert stat["errors"] == 0, stat["causes"]
        lab.wait_until(lambda: agent.metric("cqlferry_mirror_backlog_records") == 0, 20, "an empty backlog")
        sides = [compare.Side("origin", origin.address), compare.Side("astra", cluster.address)]
        try:
            result = compare.settle(*sides, [keyspace, workload.second_keyspace(keyspace)], [load.record], 20)
        finally:
            for s in sides:
                s.close()
        assert result.ok(), result.text() + "\n" + "\n".join(result.notes)
        assert result.acknowledged > 150
        # A start while the service is away goes on with what it said last.
        agent.stop()
        metadata.status = 503
        agent.start()
        assert "going on with the nodes that it named before" in agent.log()
        lab.wait_until(lambda: agent.metrics()["cqlferry_phase"] == 3, 5, "still in cutover")
        pod.python(f"import rawcql; rawcql.Client('{origin.address}').query('SELECT * FROM {keyspace}.items')")
    finally:
        stand_in.close()
