"""Notices that the Ray node on this machine is gone, and with it the cluster that the driver has joined.

Ray itself tells a driver late or never: while nothing answers it waits, and once another cluster runs at the same
address it goes on waiting for tasks that the new one has never heard of, or ends in a C++ stack trace (Ray 2.60).
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 1.0
LOOKS = 3
"""Connections in a row that the node has to refuse."""


@contextmanager
def watched(lost: Callable[[], None]) -> Iterator[None]:
    """While the block runs, look at this machine's Ray node, and call `lost` once, from a thread, when it is gone."""
    import ray

    mine = ray.get_runtime_context().get_node_id()
    (name,) = [node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == mine]
    if not listens(name):  # a driver that goes through another machine's node, and has none here to look at
        yield
        return
    over = threading.Event()

    def watch() -> None:
        refused = 0
        while not over.wait(LOOK_S):
            refused = 0 if listens(name) else refused + 1
            if refused == LOOKS:
                lost()
                return

    thread = threading.Thread(target=watch, name="raylet_watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def listens(name: str) -> bool:
    """Whether a process listens at a socket of this machine. One that is only busy does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LOOK_S)
        try:
            client.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its queue is full, or it is late
            return True
    return True
