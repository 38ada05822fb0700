# SPDX-License-Identifier: Apache-2.0
"""Certificates, a secret as the kubelet mounts it, and what plays Astra: HAProxy that passes TLS on by server name, a metadata
service that wants a certificate, and the bundle that names both. The lab's CA is tests/lab/cassandra.sh's."""
import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import uuid
import zipfile
from contextlib import contextmanager

import lab
import rawcql

TLS = os.path.join(lab.RUN, "tls")
CA = os.path.join(TLS, "ca.pem")
CLIENT = (os.path.join(TLS, "client.pem"), os.path.join(TLS, "client.key"))
CLIENT_P12 = os.path.join(TLS, "client.p12")
PASSWORD = "labpass"


def openssl(*args):
    r = subprocess.run(["openssl", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=60)
    if r.returncode:
        raise lab.LabError(f"openssl {' '.join(args)}: {r.stderr}")


def own_ca(directory, name="other"):
    """A CA that nobody trusts: its certificate and key."""
    pem, key = os.path.join(directory, f"{name}-ca.pem"), os.path.join(directory, f"{name}-ca.key")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={name} CA",
            "-keyout", key, "-out", pem)
    return pem, key


def certificate(directory, name, san="DNS:nobody", days=30, ca=None):
    """(certificate, key) signed by the lab's CA, or another. Negative days: it has expired."""
    pem, key, csr, extra = (os.path.join(directory, name + e) for e in (".pem", ".key", ".csr", ".ext"))
    ca_pem, ca_key = ca or (CA, os.path.join(TLS, "ca.key"))
    with open(extra, "w", encoding="utf-8") as f:
        f.write(f"subjectAltName={san}\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", csr)
    openssl("x509", "-req", "-in", csr, "-CA", ca_pem, "-CAkey", ca_key, "-set_serial", str(int.from_bytes(os.urandom(8), "big") >> 1),
            "-days", str(days), "-extfile", extra, "-out", pem)
    return pem, key


class Secret:
    """A directory as the kubelet mounts a secret: names are links through ..data, which is a link that is moved."""

    def __init__(self, path):
        self.path, self.version = path, 0
        os.makedirs(path)

    def put(self, **files):
        """put(crt=path, key=path): all of them change at once."""
        self.version += 1
        directory = os.path.join(self.path, f"..v{self.version}")
        os.makedirs(directory)
        for name, source in files.items():
            shutil.copy(source, os.path.join(directory, name))
            link = os.path.join(self.path, name)
            if not os.path.islink(link):
                os.symlink(f"..data/{name}", link)
        os.symlink(f"..v{self.version}", os.path.join(self.path, "..data_tmp"))
        os.rename(os.path.join(self.path, "..data_tmp"), os.path.join(self.path, "..data"))

    def file(self, name):
        return os.path.join(self.path, name)


class TlsServer:
    """A TLS port of the node that shows a certificate; whoever gets that far reads an end."""

    def __init__(self, certificate_and_key, address=lab.NODE_IP):
        import socket

        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate_and_key)
        self.socket = socket.create_server((address, 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            try:
                connection.settimeout(5)
                self.context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    def close(self):
        import socket

        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10)


class Metadata:
    """HTTPS that wants a certificate of the lab's CA, and names the nodes."""

    def __init__(self, certificate_and_key, answer, address=lab.NODE_IP):
        outer = self
        self.answer, self.status, self.asked = answer, 200, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                body = json.dumps(outer.answer).encode()
                self.send_response(outer.status if self.path == "/metadata" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate_and_key)
        context.load_verify_locations(CA)
        context.verify_mode = ssl.CERT_REQUIRED
        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


def bundle(path, host, port, certificate_and_key=CLIENT, ca=CA):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("config.json", json.dumps({"host": host, "port": port, "cql_port": 29042, "keyspace": "ignored", "localDC": "dc1",
                                              "caCertLocation": "./ca.crt", "keyLocation": "./key", "certLocation": "./cert"}))
        z.write(ca, "ca.crt")
        z.write(certificate_and_key[0], "cert")
        z.write(certificate_and_key[1], "key")
        z.writestr("identity.jks", b"not read")


class SniProxy:
    """HAProxy in a pod: TLS is passed on, unopened, to the node that the server name stands for."""

    def __init__(self, pod, nodes, port=29042):
        """nodes: {server name: address}"""
        self.pod, self.port = pod, port
        self.path = os.path.join(lab.RUN, f"haproxy-{pod.name}.cfg")
        lines = ["global", "  maxconn 2000", "defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 1h", "  timeout server 1h",
                 "frontend sni", f"  bind {pod.address}:{port}", "  tcp-request inspect-delay 5s",
                 "  tcp-request content accept if { req.ssl_hello_type 1 }"]
        for i, name in enumerate(nodes):
            lines.append(f"  use_backend node{i} if {{ req.ssl_sni -i {name} }}")
        for i, address in enumerate(nodes.values()):
            lines += [f"backend node{i}", f"  server n {address}:9042"]
        with open(self.path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        self.process = pod.start(["haproxy", "-db", "-f", self.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_until(lambda: pod.run(["bash", "-c", f": <>/dev/tcp/{pod.address}/{port}"], check=False).returncode == 0, 10,
                       "HAProxy listens", step=0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Astra:
    """A cluster's nodes behind the proxy, known by their host ids alone, the metadata service and the bundle that names it."""

    def __init__(self, cluster, directory, pod):
        self.ids = {}
        for address in cluster.addresses:
            c = rawcql.Client(address)
            self.ids[str(uuid.UUID(bytes=c.query("SELECT host_id FROM system.local")[1][-16:]))] = address
            c.close()
        self.pod = pod
        self.proxy = SniProxy(pod, self.ids)
        self.metadata = Metadata(certificate(directory, "metadata", "DNS:metadata.cqlferry.test"), {
            "version": 1, "region": "lab", "contact_info": {"type": "sni_proxy", "local_dc": "dc1", "contact_points": list(self.ids),
                                                            "sni_proxy_address": f"db.cqlferry.test:{self.proxy.port}"}})
        self.bundle = os.path.join(directory, "bundle.zip")
        bundle(self.bundle, "metadata.cqlferry.test", self.metadata.port)

    def close(self):
        self.metadata.close()
        self.proxy.stop()


@contextmanager
def names(proxy="10.77.0.60"):
    """Names of the lab in /etc/hosts; its mount namespace is the lab's own."""
    path = os.path.join(lab.RUN, "hosts")
    with open("/etc/hosts", encoding="utf-8") as f, open(path, "w", encoding="utf-8") as t:
        t.write(f.read() + f"\n{proxy} db.cqlferry.test\n{lab.NODE_IP} metadata.cqlferry.test\n")
    subprocess.run(["mount", "--bind", path, "/etc/hosts"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "/etc/hosts"], check=True)
