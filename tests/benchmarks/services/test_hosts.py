"""Hosts as network namespaces: they reach each other by their addresses, and a cut one nobody."""

import subprocess
import sys

import pytest

from benchmarks.services.hosts import Host, hosts, missing

SERVER = """
import socket
made = socket.create_server((%r, 4000))
print("ready", flush=True)
while True:
    made.accept()[0].close()
"""
CLIENT = "import socket; socket.create_connection((%r, 4000), timeout=2)"


def reaches(one: Host, other: Host) -> bool:
    """Whether `one` gets a connection to what listens on `other`."""
    command = one.command([sys.executable, "-I", "-c", CLIENT % other.address])
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.cluster
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_hosts_reach_each_other_unless_one_is_cut_off() -> None:
    with hosts(3) as (head, first, second):
        command = head.command([sys.executable, "-I", "-c", SERVER % head.address])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            try:
                assert reaches(first, head) and reaches(second, head)
                second.cut()
                assert reaches(first, head) and not reaches(second, head)
                second.connect()
                assert any(reaches(second, head) for _ in range(20))  # the neighbour is looked for anew
            finally:
                server.kill()
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert not any(host.name in left for host in (head, first, second)) and head.switch not in left.split()
