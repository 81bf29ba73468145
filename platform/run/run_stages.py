"""Runs the stages after the CAM run on Ray, each once: a stage whose key has a manifest is done and is not run again.

A stage works in `<stage>-<key>.work`, where every file is whole or absent, and gets its own name when all are there: a
killed stage leaves nothing half-written, and the same command goes on with the files that are missing. Where the
storage is a bucket (bucket_sync.py) every task fetches what it reads and keeps what it made as a part of the stage; the
part that holds the manifest comes last.

A sweep whose stages are done loads neither Ray nor torch: both come with the tasks (stage_tasks.py), where one starts.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cpn.config import Config
from cpn.core.checked import read_typed
from cpn.core.errors import InputError, WorkError
from cpn.core.files import file_digest, read_json, write_json
from cpn.data.voc import Pack
from cpn.propagation.walk_rule import far_words, follows_run
from cpn.scoring.shown_sizes import shown_smaller
from cpn.segmentation.schedule import iterations_for
from cpn.stages.imported_files import ImportedFiles
from cpn.stages.stage_manifest import StageManifest, WalkReport, stage_keys, stage_settings

from ..base import bucket_sync
from ..base.claims import Claims
from ..base.paths import MANIFEST, Storage
from ..base.terminal import Terminal
from ..cluster.capacity import Node, total
from ..config.own_code import contents_of
from ..config.sections import Resources
from .earlier_keys import take_over_stage
from .import_stage import import_stage
from .stage_files import about_to_be_read, checked, write_files
from .stage_plan import EPOCHS, Plan, needs
from .walk_stage import walk_of

STAGES = ("cam", "crf", "affinity", "random_walk", "deeplab")
IMAGES_PER_TASK = 64
POLL_S = 0.3


class StageFailed(WorkError):
    """A stage failed; those before it are done and stay, and the same command goes on from here."""

    def __init__(self, stage: str, key: str, why: Exception, manifests: Mapping[str, StageManifest]) -> None:
        """`manifests` are those of the stages that are done, by name."""
        super().__init__(f"stage {stage}: {why}", getattr(why, "cure", None))
        self.stage, self.key, self.manifests = stage, key, dict(manifests)

    def next_line(self, command: str) -> str:
        """Return what to type next: `command` with the cure, where there is one."""
        return f"next: {command} --set {self.cure}" if self.cure else f"next, once that is mended: {command}"


def run_stages(
    *,
    store: Storage,
    model: Path,
    beta: float,
    config: Config,
    pack: Pack,
    data_root: str,
    resources: Resources,
    cluster: Callable[[], Sequence[Node]],
    claims: Claims,
    terminal: Terminal,
    started: Callable[[str, str, Mapping[str, Any]], None],
    ended: Callable[[str, str, StageManifest, Path], None],
    imported: ImportedFiles | None = None,
) -> dict[str, StageManifest]:
    """Carry the CAM network `model` on to DeepLab; returns every stage's manifest by name.

    Where `imported` files of another method are given they take the place of their stage, those before it are left out,
    and `model` is the list of their digests.

    `cluster` starts or joins Ray when there is something to do; what another sweep of this storage is making is waited
    for. What is damaged of a stage is said in a line and made again. `started(stage, key, settings)` and
    `ended(stage, key, manifest, folder)` hear of every stage, done before or now.
    """

    start = None if imported is None else imported.stage
    stages = stages_of(config, start)
    keys = stage_keys(file_digest(model), config, pack.fingerprint, beta=beta, imported=start)
    dump = config.model_dump(mode="json")
    folders: dict[str, str] = {}
    unknown: list[str] = []
    manifests: dict[str, StageManifest] = {}
    far = None if start == "random_walk" else far_words(config.random_walk, config.crf, beta)
    whole = store.url is None  # in a bucket what is fetched is checked

    def plan_in(work: Path) -> Plan:
        inside = (store.inside(model), dump, data_root, store.inside(work), dict(folders))
        return Plan(store.place, *inside, beta, contents_of(config))

    needed = about_to_be_read({stage: store.stage(stage, keys[stage]) for stage in stages}, stages) if whole else set()
    for stage in stages:
        folder, key = store.stage(stage, keys[stage]), keys[stage]
        own = stage != start
        section, settings = stage_settings(stage, config) if own else ("imported", {"list": str(file_digest(model))})
        started(stage, key, {f"{section}.{name}": value for name, value in settings.items()})
        with claims.alone(folder.name, terminal.say):
            bucket_sync.download_stage(store, folder)
            inputs = {name: keys[name] for name in folders} | {"model": str(file_digest(model))}
            begun = StageManifest(stage=stage, key=key, inputs=inputs, metrics={})
            state = checked(folder, stage, stage in needed, terminal.warn)
            unknown += [] if state.known or not whole else [folder.name]
            there = state.manifest is not None
            say = terminal.say
            if not (there or (own and take_over_stage(store, config, pack.fingerprint, beta, folder, begun, say))):
                have = cluster() if own else []
                if far is not None and stage in ("crf", "random_walk") and pack.split(config.data.score).masked:
                    terminal.warn(far)  # beta was read off masks, and what it decides is about to be made
                    far = None
                if own:
                    say_what_is_limited(stage, config, pack, terminal)
                work = folder.with_name(folder.name + ".work")
                work.mkdir(parents=True, exist_ok=True)
                plan = plan_in(work)
                began = time.monotonic()
                choice: WalkReport | None = None
                try:
                    if imported is not None and not own:
                        from .stage_tasks import finishing_task

                        import_stage(imported, pack, config.data.train, work, terminal)
                        metrics = finishing_task(stage, plan)
                    elif stage == "random_walk":
                        choice = choose_walk(plan, store, work, pack, resources, have, terminal)
                        plan = replace(plan, walk=choice.choice if choice else None)
                    if own:
                        metrics = run_stage(stage, plan, store, work, pack, resources, have, terminal)
                except InputError as error:
                    raise plain(error) from None
                except WorkError as error:
                    raise StageFailed(stage, key, plain(error), manifests) from None
                bucket_sync.download_work(store, work, lambda name: name == EPOCHS)
                manifest = StageManifest(
                    stage=stage,
                    key=key,
                    inputs=inputs,
                    config=settings,
                    metrics={**(choice.metrics if choice else {}), **metrics},
                    **({"walk": choice} if choice else {}),
                    history=read_json(work / EPOCHS) if (work / EPOCHS).exists() else (),
                    seconds=time.monotonic() - began,
                    finished=time.time(),
                    **({"files": write_files(work)} if whole else {}),
                )
                write_json(work / MANIFEST, manifest.to_json())
                bucket_sync.finish_stage(store, work, folder)
            elif state.damaged:
                draw_again(stage, plan_in(folder), folder, resources, cluster)
        folders[stage] = store.inside(folder)
        manifests[stage] = read_typed(folder / MANIFEST, StageManifest)
        ended(stage, key, manifests[stage], folder)
    if unknown:
        terminal.say(f"{', '.join(unknown)}: of an earlier version, without digests of their files; taken as they are")
    return manifests


def stages_of(config: Config, imported: str | None = None) -> tuple[str, ...]:
    """Return the stages that are run, or taken over, where other files take the place of stage `imported`
    (None: all).
    """
    refined = ("instance_masks",) if config.instance_masks.folder is not None else ()
    return (*STAGES[0 if imported is None else STAGES.index(imported) : -1], *refined, STAGES[-1])


def say_what_is_limited(stage: str, config: Config, pack: Pack, terminal: Terminal) -> None:
    """Say how many images `max_pixels` shows smaller in a stage that is about to read them."""

    section, name = (config.cam, config.data.train) if stage == "cam" else (config.deeplab, config.data.val)
    if stage in ("cam", "deeplab") and section.max_pixels is not None and name in pack.lists:
        if (words := shown_smaller(section, pack.split(name))) is not None:
            terminal.say(words)


def draw_again(
    stage: str, plan: Plan, folder: Path, resources: Resources, cluster: Callable[[], Sequence[Node]]
) -> None:
    """Draw the pictures of a done stage anew, and keep their digests."""
    import ray

    from .stage_tasks import finishing_task

    cluster()
    ray.get(ray.remote(**needs(stage, resources), max_retries=3)(finishing_task).remote(stage, plan))
    manifest = read_typed(folder / MANIFEST, StageManifest).model_copy(update={"files": write_files(folder)})
    write_json(folder / MANIFEST, manifest.to_json())


def run_stage(
    stage: str,
    plan: Plan,
    store: Storage,
    work: Path,
    pack: Pack,
    resources: Resources,
    have: Sequence[Node],
    terminal: Terminal,
) -> dict[str, float]:
    """Run one stage into `work`, spread over Ray tasks where it goes image by image; returns its metrics."""
    import ray

    from cpn.stages.pipeline import PER_IMAGE

    from .stage_tasks import finishing_task, image_task, training_task

    as_task = ray.remote(**needs(stage, resources), max_retries=3)
    if stage in PER_IMAGE:
        ids = pack.split(plan.config["data"]["train"]).ids
        tasks_at_once = max(1, int(total(have, "CPU")))
        size = max(1, min(IMAGES_PER_TASK, -(-len(ids) // tasks_at_once)))
        done = bucket_sync.stems(store, work)
        left = [index for index, name in enumerate(ids) if name not in done]
        task = as_task(image_task)
        refs = [task.remote(stage, plan, left[at : at + size]) for at in range(0, len(left), size)]
        with terminal.stage(stage, "images", len(ids)) as bar:
            if store.url is None:
                wait(refs, lambda _: bar.at(sum(name.endswith((".npz", ".png")) for name in os.listdir(work))))
            else:
                wait(refs, lambda ended: bar.at(len(ids) - len(left) + min(size * ended, len(left))))
    else:
        _, settings = stage_settings(stage, Config.model_validate(plan.config))
        epochs = settings.get("epochs") or epochs_of(settings, len(pack.split(plan.config["data"]["train"])))
        ref = as_task(training_task).remote(stage, plan)
        with terminal.stage(stage, "epochs", epochs) as bar:
            watched = bucket_sync.Watched(store, work, EPOCHS)
            wait([ref], lambda _: bar.at(len(watched.read() or [])))
    finish = as_task(finishing_task)
    metrics: dict[str, float] = ray.get(finish.remote(stage, plan))
    if stage not in PER_IMAGE:
        trained: dict[str, float] = ray.get(ref)
        metrics = {**trained, **metrics}
    return metrics


def epochs_of(settings: Mapping[str, Any], images: int) -> int:
    """Epochs that DeepLab's iterations are on so many images; null iterations are those of its rule."""

    batch_size: int = settings["batch_size"]
    iterations: int = settings["iterations"] or iterations_for(images, batch_size)
    return -(-iterations // max(1, images // batch_size))


def plain(error: InputError | WorkError) -> InputError | WorkError:
    """Return the line that a task of Ray's failed with; Ray raises it with the task's traceback for a text."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, (InputError, WorkError)) else error


def choose_walk(
    plan: Plan,
    store: Storage,
    work: Path,
    pack: Pack,
    resources: Resources,
    have: Sequence[Node],
    terminal: Terminal,
) -> WalkReport | None:
    """Return what is chosen for the random walk (cpn/stages/walk_choice.py), said in a line; None where its numbers
    stand.
    """
    import ray

    from .stage_tasks import inputs_of

    config = Config.model_validate(plan.config)
    if not follows_run(config.random_walk):
        return None
    as_task = ray.remote(**needs("random_walk", resources), max_retries=3)
    known = partial(inputs_of, plan)
    report = walk_of(store, work, pack, config.data.score, known, as_task, have, terminal, wait)
    terminal.say(report.words)
    return report


def wait(refs: Sequence[Any], show: Callable[[int], None]) -> None:
    """Wait for Ray tasks, showing progress (how many have ended); a task's exception is raised here."""
    import ray

    left = list(refs)
    while left:
        done, left = ray.wait(left, num_returns=len(left), timeout=POLL_S)
        for ref in done:
            ray.get(ref)
        show(len(refs) - len(left))
