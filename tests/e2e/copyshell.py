# SPDX-License-Identifier: Apache-2.0
"""cqlsh and `cqlferry copy` as programs that a person starts."""
import os
import subprocess
import sys

import lab

CQLSH = os.path.join(os.path.dirname(sys.executable), "cqlsh")


class Shell:
    """cqlsh and cqlferry copy as a person runs them, in a directory of the test's own."""

    def __init__(self, cluster, directory):
        self.cluster, self.directory = cluster, str(directory)
        self.env = dict(os.environ, HOME=self.directory, PYTHONWARNINGS="ignore")

    def path(self, name):
        return os.path.join(self.directory, name)

    def cqlsh(self, statement, timeout=90):
        r = subprocess.run([CQLSH, "-u", lab.USER, "-p", lab.PASSWORD, "--insecure-password-without-warning", "--request-timeout", "60",
                            self.cluster.address, "-e", statement], env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        assert "Error" not in r.stderr and "Failed" not in r.stderr, r.stderr
        return r

    def command(self, *args, host=None):
        """host: None = the cluster's, "" = none is named."""
        to = [] if host == "" else ["--host", host or self.cluster.address]
        return [lab.BINARY, "copy", *args, *to, "-u", lab.USER, "-p", lab.PASSWORD]

    def copy(self, *args, expect=0, host=None, prefix=(), timeout=90, stdin=None):
        r = subprocess.run([*prefix, *self.command(*args, host=host)], env=self.env, cwd=self.directory, input=stdin,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        r.stdout, r.stderr = r.stdout.decode(), r.stderr.decode()
        assert r.returncode == expect, f"exit {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r

    def lines(self, name):
        with open(self.path(name), "rb") as f:
            return sorted(f.read().split(b"\r\n"))


def peak_kib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            return next((int(x.split()[1]) for x in f if x.startswith("VmHWM")), 0)
    except OSError:
        return 0
