"""Several hosts on one machine, as network namespaces with addresses of their own. Needs root and iproute2.

    with hosts(3) as (head, first, second):
        head.address                       # 10.77.N.1
        head.command(["hostname"])         # the words that run a command there
        second.cut()                       # its cable is pulled; second.connect() puts it back

Processes of different hosts share files and the machine's clock, and nothing of the network: what one binds to its
127.0.0.1 no other reaches. The namespaces go with the block; their processes are for their own services to end.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """One namespace with a cable to the switch."""

    name: str
    address: str
    switch: str

    def command(self, words: Sequence[str]) -> list[str]:
        """`words`, to be run on this host."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Pull the cable: packets are lost without a word, as between hosts."""
        ip("-n", self.switch, "link", "set", self.name, "down")

    def connect(self) -> None:
        """Put it back."""
        ip("-n", self.switch, "link", "set", self.name, "up")


def missing() -> str | None:
    """Why there can be no hosts here; None if there can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed: apt-get install iproute2"
    if os.getuid() != 0:
        return "network namespaces need root"
    probe = f"cpnprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode != 0:
        return "this machine allows no network namespaces"
    ip("netns", "delete", probe)
    return None


def ip(*words: str) -> None:
    """iproute2; RuntimeError with what it says when it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """`count` hosts that reach each other, and nothing else: the switch is a namespace too."""
    number = random.SystemRandom().randrange(1, 255)  # several tests may run at a time
    switch = f"cpn{number}"
    machines = [Host(f"{switch}h{at}", f"10.77.{number}.{at + 1}", switch) for at in range(count)]
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host in machines:
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
            ip("-n", switch, "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("-n", switch, "link", "set", host.name, "master", "bridge", "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
        yield machines
    finally:
        for name in [*(host.name for host in machines), switch]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
