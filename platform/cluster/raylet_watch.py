"""Notices that the Ray node on this machine is gone, and with it the cluster that the driver has joined.

Ray itself tells a driver late or never: while nothing answers it waits, and once another cluster runs at the same
address it goes on waiting for tasks that the new one has never heard of, or ends in a C++ stack trace (Ray 2.60).
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 1.0
"""Seconds between looks at whether the watch is over, and to wait for a node that is slow to take a connection."""

AGAIN_S = 0.05
"""Seconds until the next connection when the last one has ended."""


@contextmanager
def watched(lost: Callable[[], None]) -> Iterator[threading.Event]:
    """While the block runs, keep a connection to this machine's Ray node, and call `lost` once, from a thread, when it
    is gone. A process that dies closes its connections at that moment; seconds later may be too late, for another
    cluster may answer by then. Gives an event that is set from then on.
    """
    import ray

    mine = ray.get_runtime_context().get_node_id()
    (name,) = [node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == mine]
    over, gone = threading.Event(), threading.Event()
    if not listens(name):  # a driver that goes through another machine's node, and has none here to look at
        yield gone
        return

    def watch() -> None:
        while not over.wait(AGAIN_S):
            if not listens(name, over):
                gone.set()
                lost()
                return

    thread = threading.Thread(target=watch, name="raylet_watch", daemon=True)
    thread.start()
    try:
        yield gone
    finally:
        over.set()
        thread.join(AGAIN_S + LOOK_S)  # and no longer: it may be telling of the end, which waits for this thread


def listens(name: str, over: threading.Event | None = None) -> bool:
    """Return whether a process listens at a socket of this machine. One that is only busy does. With `over`, stay
    connected until that is set or the other side has ended the connection.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LOOK_S)
        try:
            client.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its queue is full, or it is late
            return True
        while over is not None and not over.is_set():
            try:
                client.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
    return True
