"""Measure something: `python -m benchmarks winner --json`. One file per topic, see README.md here."""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.comparison import NotMeasuredError, conditions, write_page
from cpn.core.errors import InputError, run_command

COMPARISONS = {
    "superpixel_vs_grid": "training samples with superpixels against grid cells",
    "loader_vs_pil": "training samples against a pipeline of PIL and float32",
    "loader_checked": "training samples with their files' digests checked at the start against none",
    "train_step": "one pass over the three branches against three float32 passes",
    "pcm_memory": "what PCM holds, against the whole affinity matrix",
    "pcm_time": "how long PCM takes, against the whole affinity matrix",
    "cam_inference": "an image's eight passes against one by one",
    "beta_curve": "all betas by one histogram against a pass for each threshold",
    "crf_pool": "the CRF on present labels in processes against all labels in one",
    "random_walk": "a sparse walk against squaring the dense matrix",
    "bootstrap": "the bootstrap over images as one product against a loop",
    "growth": "how CPU time and memory grow with images and trials, against linearly",
    "platform_overhead": "a trial of a sweep against a trial of a bare Ray Train script of the same loop",
    "scaling": "two Ray Train workers on two cores against one",
}
"""Topic -> ours against the usual way of computing the same numbers; what runs where no topic is named."""

TOPICS = {
    "chaos": "faults under real sweeps on two Ray nodes: what is lost, doubled, orphaned or corrupt afterwards",
    "damage": "every kind of file of a finished sweep damaged in six ways: what each command makes of it",
    "ladder": "the paper's systems side by side on scenes; mIoU over S_N, K and p_h",
    "fast_forms": "what cached superpixels, OpenCV and bf16 cost in mIoU on scenes, against the exact forms",
    "walk_rule": "the random walk's rule against the best alpha and steps, on a CAM run and its data",
    "irn_walk": "IRN's walk at several exponents, steps and thresholds, on a CAM run and its data",
    "photographs": "the preset photos on a folder of photographs: what it reaches beside the goals",
    "refinement": "one network on scenes read in several ways: what PCM, absent classes and PRCM do to a map",
    "refinement_losses": "many refinements beside one training: which loss makes a trained one worse than an untrained",
    "addon": "complementary patches on somebody else's training loop: CAM mIoU over its own baseline",
    "rehearsal": "the true size on a CPU: a ResNet38 step of each network, two images to DeepLab; minutes, memory",
    "single_gpu": "memory and speed of a training step of CPN, AffinityNet and DeepLab on one GPU; hours a trial",
    "step_classes": "a CPN step against three plain passes of its backbone, with 6, 21 and 81 classes",
    "footprint": "rows, bytes and time that a trial leaves in the study's database and in MLflow's",
    "looking": "CPU seconds of the commands that look at a sweep, and of a finished sweep given again",
    "price": "what the tables of the paper cost on one card, and what fits in its memory; counted, not measured",
    "ui": "seconds until the MLflow UI shows a sweep with many children, in headless chromium",
    "scale": "driver, study and records of a sweep on 1,000 machines, with trials of which nothing is trained",
    "search": "trials to a good configuration against random and stock search; own time and memory of a long sweep",
    "fidelity": "what an epoch, fewer images or smaller crops say of a whole run, from a table of real scores",
    "tables": "real scores over what a sweep searches, run by run: scenes, or a quarter of some photographs",
    "quickstarts": "the quickstart's whole sweep with ten seeds: how often, and by how much, CPN is above cam_baseline",
    "winner": "how often a sweep names a false winner, and how often it finds a true one, in simulation",
}
"""Topic -> what it measures. Each is the module benchmarks/FOLDER/TOPIC.py."""

HERE = Path(__file__).parent
FOLDERS = ("method", "photos", "sweeps", "chaos")

USAGE = """python -m benchmarks winner --json
       python -m benchmarks [TOPIC ...] [--quick] [--json] [options of the topic]
       python -m benchmarks --list"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the topics, all comparisons when none is named; each ends with one line, as JSON with --json."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    topics = list(takewhile(lambda word: not word.startswith("-"), words))
    rest = words[len(topics) :]
    unknown = [topic for topic in topics if topic not in {**COMPARISONS, **TOPICS}]
    if unknown:
        raise InputError(f"{unknown[0]}: no such topic; take {', '.join([*COMPARISONS, *TOPICS])}")
    if not topics and {"--list", "--help", "-h"} & set(rest):
        general_help(rest)
        return 0
    for topic in topics or COMPARISONS:
        module = topic_module(topic)
        options = parser(topic, module).parse_args(rest)
        try:
            result = {"name" if topic in COMPARISONS else "topic": topic, **module.run(options)}
        except NotMeasuredError as error:
            if topics:
                raise
            print(f"not measured: {error}", flush=True)  # one of many, and the others can be
            continue
        print(json.dumps(result, allow_nan=False) if options.json else one_line(result), flush=True)
        if topic in COMPARISONS and options.write:
            write_page(options.write, [result], conditions(options.quick))
    return 0


def topic_module(topic: str) -> ModuleType:
    """Import the module of a topic, from the one folder that has it."""
    modules = [f"benchmarks.{name}.{topic}" for name in FOLDERS if (HERE / name / f"{topic}.py").is_file()]
    return importlib.import_module(modules[0])


def parser(topic: str, module: ModuleType) -> argparse.ArgumentParser:
    """The options that every topic has, and those that `module` adds."""
    command_line = argparse.ArgumentParser(
        prog=f"python -m benchmarks {topic}",
        usage=f"python -m benchmarks {topic} [--quick] [--json] [options]",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command_line.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    command_line.add_argument("--json", action="store_true", help="the last line is the result as JSON")
    if topic in COMPARISONS:
        command_line.add_argument("--write", type=Path, metavar="FILE.md", help="put the result's row into a page")
    if hasattr(module, "add_arguments"):
        module.add_arguments(command_line)
    return command_line


def general_help(rest: Sequence[str]) -> None:
    """Print the topics, and with --help how to ask for them."""
    if "--list" not in rest:
        print(f"usage: {USAGE}\n\nRun benchmarks. A topic's own options: python -m benchmarks TOPIC --help\n\ntopics:")
    for topic, measures in {**COMPARISONS, **TOPICS}.items():
        print(f"  {topic:18} {measures}")


def one_line(result: Mapping[str, Any]) -> str:
    """The result's plain values, `winner: false_winner_rate 0.04, sweeps 200`; tables stay with --json."""
    plain = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in result.items()
        if name not in ("name", "topic") and not isinstance(value, (Mapping, list, tuple))
    ]
    return f"{result.get('name') or result['topic']}: {', '.join(plain)}"


if __name__ == "__main__":
    run_command(main)
