# SPDX-License-Identifier: Apache-2.0
"""The proxy document's interface: nothing but its variables, no eBPF, one port, mirroring at once."""
import lab
import pytest

pytestmark = pytest.mark.quick


def variables(origin, target, **more):
    return {"SOURCE_HOSTNAME": origin.address, "SOURCE_USERNAME": lab.USER, "SOURCE_PASSWORD": lab.PASSWORD,
            "SOURCE_PORT": "9042", "ASTRA_HOSTNAME": target.address, "ASTRA_USERNAME": lab.USER,
            "ASTRA_PASSWORD": lab.PASSWORD, "ASTRA_PORT": "9042", "PROXY_QUERY_PORT": "29042", **more}


def test_only_variables(make_agent, pod, origin, target, keyspace, equal):
    agent = make_agent(ebpf=False, only_environment=True, environment=variables(origin, target, TEST="true"))
    agent.socket = "/run/cqlferry/admin.sock"
    assert agent.metrics()["cqlferry_phase"] == 1, "it mirrors at once"
    load = lab.Load(pod, lab.NODE_IP, keyspace, prefix="doc", port=29042, protocol=4, writers=8, rate=20, seconds=4)
    load.process.wait(60)
    stat = load.stop()
    assert stat["errors"] == 0, stat["causes"]
    equal(keyspace, [load])


def test_migration_complete_goes_to_the_target(make_agent, pod, origin, target, keyspace):
    agent = make_agent(ebpf=False, only_environment=True,
                       environment=variables(origin, target, MIGRATION_COMPLETE="true", TEST="true"))
    agent.socket = "/run/cqlferry/admin.sock"
    pod.python(f"""
import rawcql
rawcql.Client("{lab.NODE_IP}", 29042).query("INSERT INTO {keyspace}.items (id, n) VALUES ('done', 1)")
""")
    assert len(target.run(f"SELECT * FROM {keyspace}.items")) == 1
    assert len(origin.run(f"SELECT * FROM {keyspace}.items")) == 0


def test_wrong_credentials_are_refused_as_the_origin_refuses_them(make_agent, pod, origin, target):
    make_agent(ebpf=False, only_environment=True, environment=variables(origin, target, TEST="true"))
    r = pod.python(f"""
import rawcql
try:
    rawcql.Client("{lab.NODE_IP}", 29042, password="wrong")
    print("let in")
except rawcql.CqlError as e:
    print(hex(e.code))
""")
    assert r.stdout.strip() == "0x100"


@pytest.mark.parametrize("name, value, allowed", [
    ("PROXY_QUERY_PORT", "70000", "65535"), ("SOURCE_PORT", "nine", "65535"), ("DEBUG", "perhaps", "true"),
    ("ASTRA_HOSTNAME", "a b", "host"),
])
def test_a_bad_value_is_named_with_what_is_allowed(make_agent, origin, target, name, value, allowed):
    agent = make_agent(start=False, ebpf=False, only_environment=True,
                       environment=variables(origin, target, **{name: value}))
    agent.start(ready=False)
    assert agent.process.wait(10) != 0
    log = agent.log()
    assert name in log and value in log and allowed in log, log
    assert lab.PASSWORD not in log.replace(f"'{lab.USER}'", ""), "a password in the log"
