"""What the random walk's numbers are in one run, counted on Ray before the walk: `walk.json` in the stage's folder.

Saved before the first image is propagated, so that a killed stage resumes with the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpn.core.checked import read_typed
from cpn.core.files import DamagedFile, write_json
from cpn.stages.stage_manifest import WalkReport

from ..base import bucket_sync
from ..base.paths import Storage
from ..base.terminal import Terminal
from ..cluster.capacity import Node, total

if TYPE_CHECKING:
    from cpn.data.voc import Pack
    from cpn.stages.inputs import Inputs

CHOICE = "walk.json"
IMAGES_PER_TASK = 64

InputsOf = Callable[[Mapping[str, Any]], "Inputs"]
"""Files of earlier stages that a task reads, by stage -> what it may read (`stages.inputs_of` of a plan)."""


def walk_of(
    store: Storage, work: Path, pack: "Pack", scored: str, inputs_of: InputsOf, as_task: Any, have: Sequence[Node],
    terminal: Terminal, wait: Callable[[Sequence[Any], Callable[[int], None]], None],
) -> WalkReport:  # fmt: skip
    """Return the result of `walk_choice.chosen`, computed if not stored yet. `scored` names the list with masks."""
    import ray

    bucket_sync.download_work(store, work, lambda name: name == CHOICE)
    if (work / CHOICE).exists():
        try:
            return read_typed(work / CHOICE, WalkReport)
        except DamagedFile as error:
            terminal.warn(f"{error.path} is damaged; the choice is made again")
    split = pack.split(scored)
    refs: list[Any] = []
    if split.masked:
        size = max(1, min(IMAGES_PER_TASK, -(-len(split) // max(1, int(total(have, "CPU"))))))
        shares = [range(at, min(at + size, len(split))) for at in range(0, len(split), size)]
        task = as_task(counting_task)
        refs = [task.remote(inputs_of, split.ids[share.start : share.stop], share) for share in shares]
        with terminal.stage("random_walk, choosing", "images", len(split)) as bar:
            wait(refs, lambda ended: bar.at(min(size * ended, len(split))))
    counts = np.concatenate([ray.get(ref) for ref in refs]) if refs else None
    choice: WalkReport = ray.get(as_task(choosing_task).remote(inputs_of, counts))
    write_json(work / CHOICE, choice.to_json())
    bucket_sync.upload_work(store, work, [CHOICE], "choice")
    return choice


def counting_task(inputs_of: InputsOf, names: Sequence[str], indices: Sequence[int]) -> Any:
    """Return the counts of a share of the scored list at every setting."""
    from cpn.stages.walk_choice import count_settings, grid_of

    inputs = inputs_of({"cam": frozenset(names), "affinity": frozenset()})
    return count_settings(inputs, grid_of(inputs), indices)


def choosing_task(inputs_of: InputsOf, counts: Any) -> WalkReport:
    """Return the choice; a task of its own, for it opens images."""
    from cpn.stages.walk_choice import chosen, grid_of

    inputs = inputs_of({})
    return chosen(inputs, grid_of(inputs), counts)
