"""What a machine with one CUDA card answers in nine minutes at most, on synthetic images: `deploy/gpu_check.sh`.

    deploy/gpu_check.sh                       # all parts; a machine without the full install does those it can
    deploy/gpu_check.sh torch loader          # these alone
    deploy/gpu_check.sh --small torch         # a small form on the CPU: it shows that the part runs, and says no more

    torch    what fits a 24 GB card at 448 pixels (CPN, AffinityNet, DeepLab; fp32, bf16) and how fast it is; the
             comparisons of docs/development/benchmarks.md that wait for a card; fifty losses beside the CPU's
    loader   how many loader processes a card needs so as not to wait for images
    sweep    sweeps through Ray, one and two trials a card, the first killed after a trial and resumed

Each part has a process and a time limit of its own, says in one line what it lacks, and writes OUT/PART.json as it goes
on: what was measured before the limit is there. `--write` puts all of them into a page. The exit code is 0 when every
part was done, 1 when one failed, 2 when one lacked something.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = "docs/development/gpu_check.md"
CARD_GIB = 23.0
"""A little less than a 24 GB card has."""
WORKERS = (0, 2, 4, 8, 16)
METHOD = ("torch", "numpy", "pydantic", "PIL", "cv2", "scipy", "pyarrow", "skimage", "safetensors", "tqdm")


class Asked(NamedTuple):
    """What a part is asked for, and where it keeps what it found."""

    small: bool
    out: Path
    ends: float
    """When its time is over, by the monotonic clock."""

    @property
    def device(self) -> str:
        """Where it computes."""
        return "cpu" if self.small else "cuda:0"

    def left(self) -> float:
        """Seconds left."""
        return self.ends - time.monotonic()


class Part(NamedTuple):
    """A part of the check."""

    needs: tuple[str, ...]
    """What it imports."""
    seconds: int
    """How long it may take."""
    work: Callable[[Asked, Callable[[str, Any], None]], None]
    """Does it; the second argument keeps a finding under its name."""


def torch_part(asked: Asked, keep: Callable[[str, Any], None]) -> None:
    """Steps of full size under the memory of a 24 GB card, ratios, losses."""
    import torch

    from benchmarks.method import cam_inference, single_gpu, train_step

    device = torch.device(asked.device)
    keep("losses", losses_beside_the_cpus(device, 5 if asked.small else 50))
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CARD_GIB * 2**30 / whole))
    rows: list[dict[str, Any]] = []
    for name in single_gpu.JOBS:
        for precision in single_gpu.PRECISIONS:
            if asked.left() > 20:
                row = single_gpu.measure(name, precision, device, asked.small, 1 if asked.small else 10)
            else:
                row = {"note": "not measured: no time left"}
            rows.append({"network": name, "precision": precision, **row})
            keep("rows", rows)
    keep("compiled", compiled_rows(asked, device))
    options = argparse.Namespace(quick=True, device=device.type)
    for module in (train_step,) if asked.small else (train_step, cam_inference):
        if asked.left() > 30:
            keep(module.__name__.rpartition(".")[2], module.run(options))


def compiled_rows(asked: Asked, device: Any) -> list[dict[str, Any]]:
    """CPN by `train.compiled`, beside the row without: whether a whole training gains more than compiling costs."""
    from benchmarks.method import single_gpu

    rows = []
    for mode in () if asked.small else ("default", "reduce-overhead"):  # on a CPU it takes minutes and says nothing
        if asked.left() > 60:
            row = single_gpu.measure("CPN", "bf16", device, asked.small, 10, mode)
        else:
            row = {"note": "not measured: no time left"}
        rows.append({"network": f"CPN, compiled {mode},", "precision": "bf16", **row})
    return rows


def losses_beside_the_cpus(device: Any, steps: int) -> dict[str, Any]:
    """The losses of so many float32 steps of the small network on `device`, and how far they are from the CPU's."""
    import copy

    import torch

    from cpn.config import config_from
    from cpn.cost.step_time import cam_job
    from cpn.training.cam_training import objective
    from cpn.training.optimizer import build_optimizer, parameter_groups

    torch.backends.cudnn.allow_tf32 = False
    config = config_from({"preset": ["official", "scenes"], "network": {"dropout": 0.0}}, "the check")
    torch.manual_seed(0)
    job, settings = cam_job(config, 7, torch.device("cpu")), config.train
    curves = []
    for place in (torch.device("cpu"), device):
        network, batch = copy.deepcopy(job.network).to(place).train(), job.batch.to(place)
        optimizer = build_optimizer(
            "sgd", parameter_groups(network, 1e-3, settings.head_lr_factor, settings.weight_decay),
            sgd_momentum=settings.sgd_momentum, weight_decay=settings.weight_decay,
        )  # fmt: skip
        curve = []
        for _ in range(steps):
            total = objective(network, batch, 1.0, config.loss, settings.objective)["total"]
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            curve.append(total.detach())
        curves.append([float(value) for value in curve])
    torch.backends.cudnn.allow_tf32 = True
    apart = [abs(one - other) / max(abs(one), 1e-12) for one, other in zip(*curves, strict=True)]
    return {"steps": steps, "first_apart": apart[0], "most_apart": max(apart), "cpu": curves[0], "device": curves[1]}


def loader_part(asked: Asked, keep: Callable[[str, Any], None]) -> None:
    """Epochs of CPN on synthetic scenes with more and more loader processes."""
    import torch

    from cpn.config import config_from
    from cpn.config.data import ScenesConfig
    from cpn.data.superpixels import maps_for
    from cpn.models.network import build_network
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes
    from cpn.training.cam_training import train
    from cpn.training.loop import TrainingContext

    count, side, shown = (8, 64, 8) if asked.small else (32, 480, 64)
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        write_scenes(Path(place, "scenes"), ScenesConfig(train=count, val=1, size=side, seed=0))
        pack = prepare(Path(place, "scenes"), ["train"])
        for workers in [count for count in (WORKERS[:1] if asked.small else WORKERS) if count <= cores]:
            if asked.left() < 25:
                break
            config = config_from(
                {
                    "preset": ["official", "scenes"] if asked.small else "official",
                    "data": {"train": "train", "workers": workers},
                    "train": {"epochs": 1, "epoch_images": shown, "precision": "fp32" if asked.small else "bf16"},
                    "network": {"weights": None},
                },
                "the check",
            )
            maps = maps_for(config, pack.split("train"), Path(place, "cache"))
            torch.manual_seed(0)
            network = build_network(config.network, len(pack.classes) + 1)
            context = TrainingContext(device=torch.device(asked.device), report=lambda _: None)
            history = train(network, pack.split("train"), config, context, maps)
            rows.append({"workers": workers, **{n: history[-1][n] for n in ("images_per_s", "data_wait_share")}})
            keep("rows", rows)
    enough = [row["workers"] for row in rows if row["data_wait_share"] < 0.05]
    keep("enough_workers", min(enough, default=None))
    keep("cores", cores)


SWEEP = """\
search:
  loss.w_tcp: {float: [0.1, 10], log: true}
budget: {trials: 2}
"""
TO_THE_END = "confirm: {top_k: 1, seeds: 1}\n"
"""Beside it on a card: confirm runs, and all stages of the winner."""
SEARCH_ALONE = "confirm: {top_k: 0, seeds: 1}\npromote: {when: better}\n"
"""Beside it in the small form."""


def sweep_part(asked: Asked, keep: Callable[[str, Any], None]) -> None:
    """A sweep with one trial a card, killed after its first and resumed; then one with two trials a card."""
    for share in (0.0,) if asked.small else (1.0, 0.5):
        with tempfile.TemporaryDirectory() as place:
            name = "killed_and_resumed" if share != 0.5 else "two_trials_a_card"
            keep(name, small_sweep(Path(place), share, asked, kill=share != 0.5))


def small_sweep(folder: Path, share: float, asked: Asked, kill: bool) -> dict[str, Any]:
    """Run the smallest sweep with `share` of a card for each trial; its seconds, its trials, and what was kept."""
    from benchmarks.small_base import BASE

    resources = f"resources: {{gpus_per_worker: {share}, workers: 1}}\n"
    after = SEARCH_ALONE if asked.small else TO_THE_END
    (folder / "check.yaml").write_text("name: check\n" + BASE + SWEEP + after + resources)
    command = [sys.executable, "-m", "platform.sweep", "check.yaml"]
    began, before = time.monotonic(), {}
    if kill:
        run_until("complete", command, folder, asked)
        before = {path: path.stat().st_mtime for path in folder.glob("sweeps/runs/*/result.json")}
    done = subprocess.run(
        command, cwd=folder, timeout=max(1.0, asked.left()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the sweep ended with {done.returncode}: {done.stdout.strip().splitlines()[-1]}")
    trials = json.loads((folder / "sweeps/check/summary.json").read_text())["trials"]
    again = sum(path.stat().st_mtime != when for path, when in before.items())
    return {"seconds": time.monotonic() - began, "trials": trials, "kept_runs": len(before), "made_again": again}


def run_until(words: str, command: Sequence[str], folder: Path, asked: Asked) -> None:
    """Start `command` and kill it with SIGKILL at the first line with `words`."""
    printed = []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if words in line or asked.left() < 0:
                break
        process.send_signal(signal.SIGKILL)
    if words not in "".join(printed):
        raise RuntimeError(f"the sweep never said {words!r}: {(printed or ['nothing'])[-1].strip()}")


PARTS = {
    "torch": Part(METHOD, 180, torch_part),
    "loader": Part(METHOD, 90, loader_part),
    "sweep": Part((*METHOD, "ray", "optuna", "mlflow"), 270, sweep_part),
}
"""Nine minutes in all."""


def limit(part: str, small: bool) -> int:
    """Seconds that a part may take; the small form may wait for a CPU that has other work."""
    return PARTS[part].seconds * (4 if small else 1)


def lacks(part: str, small: bool) -> str | None:
    """What a part lacks on this machine, in words; None where it can run."""
    missing = [name for name in PARTS[part].needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"lacks {', '.join(missing)}; docs/install.md says how to install them"
    import torch

    if not small and not torch.cuda.is_available():
        return "lacks a CUDA device; --small runs a small form on the CPU"
    return None


def inside(part: str, small: bool, out: Path) -> int:
    """Do a part in this process, and keep each finding as soon as there is one."""
    import torch

    began = time.monotonic()
    device = "the CPU, small form" if small else torch.cuda.get_device_name(0)
    results: dict[str, Any] = {"part": part, "device": device, "torch": torch.__version__, "measured": not small}

    def keep(name: str, value: Any) -> None:
        results[name] = value
        results["seconds"] = time.monotonic() - began
        written = out / f".{part}.json"
        written.write_text(json.dumps(results, indent=1))
        written.replace(out / f"{part}.json")

    PARTS[part].work(Asked(small, out, began + limit(part, small)), keep)
    keep("done", True)
    return 0


def run_part(part: str, small: bool, out: Path) -> int:
    """Do a part in a process of its own and say in one line what came of it: 0, 1 or 2."""
    (out / f"{part}.json").unlink(missing_ok=True)
    if (words := lacks(part, small)) is not None:
        print(f"{part}: not measured: {words}", flush=True)
        return 2
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, __file__, part, "--inside", "--out", str(out), *(["--small"] if small else [])]
    with open(out / f"{part}.log", "w", encoding="utf-8") as log:
        own = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, cwd=CHECKOUT, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = own.wait(limit(part, small))
        except subprocess.TimeoutExpired:
            code = -1
        finally:  # what it started ends with it, also where this process is told to end
            if own.poll() is None:
                os.killpg(own.pid, signal.SIGKILL)
                own.wait()
    if code == 0:
        seconds = json.loads((out / f"{part}.json").read_text())["seconds"]
        print(f"{part}: done in {seconds:.0f} s: {out / part}.json", flush=True)
        return 0
    printed = (out / f"{part}.log").read_text(encoding="utf-8").strip().splitlines() or ["nothing was said"]
    why = f"took more than {limit(part, small)} s" if code == -1 else printed[-1]
    print(f"{part}: failed: {why} ({out / part}.log)", flush=True)
    return 1


HEAD = """\
# One CUDA card

Written by `deploy/gpu_check.sh --write`, which runs on any machine with one card, in nine minutes at most and on
synthetic images. Each part runs alone by its name (`deploy/gpu_check.sh torch`), says in one line what it lacks, and
writes `PART.json` into the folder `--out`. With `--small` it runs on the CPU, which shows that it runs and measures
nothing.

| part | what it answers | answer |
|---|---|---|
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of what was measured on a card; "not measured" for the rest."""
    lines = HEAD.splitlines()
    for part, (question, words) in ANSWERS.items():
        result = results.get(part, {})
        lines.append(f"| `{part}` | {question} | {words(result) if result.get('measured') else 'not measured'} |")
    devices = sorted(
        {f"{result['device']}, torch {result['torch']}" for result in results.values() if result.get("measured")}
    )
    lines += ["", f"Device: {'; '.join(devices) or 'none: no line of this project has run on a card yet'}."]
    return "\n".join(lines) + "\n"


def torch_words(result: Mapping[str, Any]) -> str:
    """Rows and ratios in short."""
    rows = [
        f"{r['network']} {r['precision']} "
        + (r["note"] if "note" in r else f"{r['peak_gib']:.1f} GiB, {r['images_per_s']:.1f} images/s")
        for r in [*result.get("rows", []), *result.get("compiled", [])]
    ]
    ratios = [f"{n} {result[n]['ratio']:.2f}" for n in ("train_step", "cam_inference") if n in result]
    losses = [f"losses at most {result['losses']['most_apart']:.1e} apart"] if "losses" in result else []
    return "; ".join([*rows, *ratios, *losses])


def loader_words(result: Mapping[str, Any]) -> str:
    """Speed and waiting by loader processes."""
    rows = [
        f"{r['workers']}: {r['images_per_s']:.1f} images/s, waits {r['data_wait_share']:.0%}"
        for r in result.get("rows", [])
    ]
    return "; ".join([*rows, f"enough: {result.get('enough_workers')}"])


def sweep_words(result: Mapping[str, Any]) -> str:
    """Seconds of the sweeps."""
    names = [name for name in ("killed_and_resumed", "two_trials_a_card") if name in result]
    return "; ".join(f"{n.replace('_', ' ')}: {result[n]['seconds']:.0f} s, {result[n]['trials']}" for n in names)


ANSWERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "torch": (
        "what fits 24 GB at 448 pixels, images/s, the ratios that wait for a card, fifty losses beside the CPU's",
        torch_words,
    ),
    "loader": ("does the card wait for images, and how many loader processes are enough", loader_words),
    "sweep": ("sweeps through Ray, one and two trials a card, a kill and a resume", sweep_words),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the parts that are named, all without a name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is named")
    parser.add_argument("--small", action="store_true", help="a small form on the CPU")
    parser.add_argument("--out", type=Path, default=Path("build/gpu_check"), help="folder of results (%(default)s)")
    parser.add_argument("--write", action="store_true", help=f"put what was measured into {PAGE}")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        print(f"error: {unknown[0]}: no such part; take {', '.join(PARTS)}", file=sys.stderr)
        return 2
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        return inside(options.parts[0], options.small, out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    codes = [run_part(part, options.small, out) for part in options.parts or PARTS]
    if options.write:
        files = {part: out / f"{part}.json" for part in PARTS}
        results = {part: json.loads(file.read_text()) for part, file in files.items() if file.exists()}
        (CHECKOUT / PAGE).write_text(page(results), encoding="utf-8")
        print(f"written: {PAGE}")
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
