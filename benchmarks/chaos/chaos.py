"""Breaks things under small real sweeps, and compares the books afterwards.

    python -m benchmarks chaos --faults 50 --seed 0 --json

Every sweep is the command `python -m platform.sweep` on synthetic scenes: 3 trials and 3 confirm runs of 12 epochs, two
at a time on two Ray nodes of this machine, then all stages; records in an MLflow server, the study in sqlite or
PostgreSQL. At seeded moments something is broken (the kinds of fault are listed in benchmarks/chaos/plan.py). What was
broken is mended after a while as an operator would, and the same command is run again until it ends with 0. One more
sweep runs first without faults; all others have to come to exactly what it came to. The last line counts:

    faults           that were brought about
    lost             a trial, run, stage, epoch of a metric, record or the champion that is missing or did not get
                     the end it has undisturbed; an end of the command with 1 or 2 that no fault explains; a sweep
                     that stood still until it was killed
    duplicates       a second trial, MLflow run, registered version or metric of an epoch
    orphans          after the end: processes of the sweep, actors and placement groups on the cluster, rows RUNNING
    corrupt          parameters, reports, metrics or weights that differ from the undisturbed sweep in any bit; a file
                     that is not what its manifest says; the champion's digest
    median_resume_s  seconds from a fault until everything that ran has reported an epoch again or ended: the outage,
                     the operator's restart of the command and Ray's start are in it

What the plan is depends on `--faults` and `--seed` alone; which process is hit when, on the machine's speed as well.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.books import Books
from benchmarks.chaos.campaign import Campaign, run_campaign
from benchmarks.chaos.plan import KINDS, plan
from benchmarks.services.postgres import missing
from cpn.core.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faults", type=int, default=50, help="how many faults are brought about (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="what the plan is drawn from (default: 0)")
    parser.add_argument("--plan", action="store_true", help="print the plan and break nothing")
    parser.add_argument("--keep", action="store_true", help="leave the sweeps' folders there, and say where")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The campaign, as the module says."""
    faults = min(3, options.faults) if options.quick else options.faults
    if faults < 1:
        raise InputError(f"--faults {faults}: nothing would be broken; give 1 or more")
    planned = plan(faults, options.seed)
    if options.plan:
        for number, sweep in enumerate(planned, 1):
            print(f"sweep {number}: {'PostgreSQL, MLflow server' if sweep.postgres else 'sqlite, no MLflow server'}")
            for fault in sweep.faults:
                print(f"  {fault.number:2d} {fault.kind:18} after {fault.after} reports and {fault.delay_s:.1f} s")
        return {"faults": 0, "seed": options.seed, "plan": [vars(fault) for sweep in planned for fault in sweep.faults]}
    reason = missing()
    if reason and any(sweep.postgres for sweep in planned):
        raise InputError(f"--seed {options.seed}: its plan has PostgreSQL in it; {reason}")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # amid the lines of the faults
    began = time.monotonic()
    campaign = Campaign()
    folder = Path(tempfile.mkdtemp(prefix="cpn-chaos-"))
    try:
        run_campaign(campaign, planned, folder)
    finally:
        if options.keep:
            print(f"the sweeps: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print_tables(campaign)
    resumes = [hit.resume_s for hit in campaign.hits]
    return {
        "seed": options.seed,
        "faults": len(campaign.hits),
        **{name: campaign.count(name) for name in vars(Books())},
        "median_resume_s": round(statistics.median(resumes), 1) if resumes else 0.0,
        "longest_resume_s": round(max(resumes, default=0.0), 1),
        "sweeps": len(campaign.books),
        "starts": sum(campaign.starts.values()),
        "tracebacks": sum(len(texts) for texts in campaign.tracebacks.values()),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "hits": [{**vars(hit.fault), **{k: v for k, v in vars(hit).items() if k != "fault"}} for hit in campaign.hits],
        "traceback_texts": [f"{name}: {text}" for name, texts in campaign.tracebacks.items() for text in texts],
        "sentences": [f"{name}: {line}" for name, books in campaign.books.items() for line in books.sentences()],
    }


def print_tables(campaign: Campaign) -> None:
    """Faults one by one, then by kind."""
    console = Console(width=120)
    table = Table("fault", "kind", "sweep", "while these ran", "resumed after s", "starts")
    for hit in campaign.hits:
        row = (hit.fault.number, hit.fault.kind, hit.sweep, hit.at, f"{hit.resume_s:.0f}", hit.starts)
        table.add_row(*map(str, row))
    console.print(table)
    table = Table("kind", "what", "faults", "median resume s", "starts again")
    for kind, what in KINDS.items():
        hits = [hit for hit in campaign.hits if hit.fault.kind == kind]
        if hits:
            median = statistics.median(hit.resume_s for hit in hits)
            table.add_row(kind, what, str(len(hits)), f"{median:.0f}", str(sum(hit.starts for hit in hits)))
    console.print(table)
