"""One small real sweep that is driven by its command line, watched by the records that it writes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.services.processes import CHECKOUT, MARK

EPOCHS, TRIALS = 12, 3
SPEC = f"""
name: NAME
base:
  preset: [official, scenes]
  data: {{scenes: {{train: 16, val: 6, seed: 3}}}}
  patches: {{draw: bernoulli}}
  network: {{weights: null}}
  train: {{epochs: {EPOCHS}, batch_size: 4}}
  cam: {{scales: [1.0]}}
  affinity: {{epochs: 1, batch_size: 4}}
  random_walk: {{radius: 3}}
  deeplab: {{iterations: 4, batch_size: 4, width: 8, scales: [1.0]}}
search:
  patches.kind: {{choice: [superpixel, grid]}}
  patches.S_N: {{int: [5, 60], log: true, when: {{patches.kind: superpixel}}}}
  patches.K: {{choice: [[8, 16], [16, 32]], when: {{patches.kind: grid}}}}
  loss.w_tcp: {{float: [0.1, 10], log: true}}
  cam.beta: {{curve: true}}
budget: {{trials: {TRIALS}}}
pruning: {{kind: none}}
resources: {{gpus_per_worker: 0, workers: 1}}
confirm: {{top_k: 1, seeds: 1}}
"""
"""Nothing is pruned: which of two trials at a time reports first would decide."""

Event = dict[str, Any]


class Sweep:
    """A sweep in `folder`. `start` begins or continues it, always with the same command."""

    def __init__(self, folder: Path, name: str, settings: Sequence[str], environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        (folder / "sweep.yaml").write_text(SPEC.replace("NAME", name))
        self.folder, self.name, self.mark = folder, name, f"{environment[MARK]}.{name}"
        self.command = ["-m", "platform.sweep", "sweep.yaml", *(word for s in settings for word in ("--set", s))]
        path = os.pathsep.join(filter(None, [str(CHECKOUT), environment.get("PYTHONPATH")]))
        self.environment = {**environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", MARK: self.mark}
        self.starts = 0
        self._read, self._events = 0, list[Event]()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def storage(self) -> Path:
        """resources.storage."""
        return self.folder / "sweeps"

    @property
    def log(self) -> Path:
        """What the command printed, over all its starts."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """The driver's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Run the command; its output is appended to the log."""
        self.starts += 1
        with open(self.log, "ab") as log:
            log.write(f"\n--- start {self.starts}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [sys.executable, *self.command], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def output(self) -> str:
        """Read the output of the last start so far."""
        return self.log.read_text(errors="replace").rpartition("\n--- start ")[2]

    def code(self) -> int | None:
        """The exit code of the last start, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """kill -9 of the driver."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def events(self) -> list[Event]:
        """All records so far; a torn last line is read when it is whole."""
        path = self.storage / self.name / "records" / "events.jsonl"
        if path.exists():
            with open(path, "rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._events.append(json.loads(line))
        return self._events

    def running(self) -> set[str]:
        """List the trials and stages that were started and have not ended."""
        unfinished: set[str] = set()
        for event in self.events():
            if event["kind"] == "start" and event["parent"] is not None:
                unfinished.add(event["uid"])
            elif event["kind"] == "end":
                unfinished.discard(event["uid"])
        return unfinished

    def steps(self) -> int:
        """How far it came: starts, epochs and ends so far. A trial's end has a hundred records more, all at once."""
        return sum(e["kind"] in ("start", "end") or "miou_epoch" in e.get("values", ()) for e in self.events())

    def moved(self, since: int) -> set[str]:
        """What has reported or ended in the records from number `since` on."""
        return {event["uid"] for event in self.events()[since:] if event["kind"] in ("metrics", "end")}
