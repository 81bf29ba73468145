"""What has to hold before a run's checkpoint becomes champion and goes on: artifact, environment, confirm.

A gate that does not hold gives way only to a reason, which the history keeps (`python -m platform.promote --because`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cpn.config import METHOD_VERSION
from cpn.core.files import DamagedFile, file_digest
from cpn.data.voc import Pack

from ..config.sweep_spec import SweepSpec
from ..search import confirm
from ..search.study import REFERENCE, State, TrialRow
from .candidates import Candidate, Gate


def artifact_gate(chosen: Candidate, versions: Iterable[Mapping[str, str]]) -> Gate:
    """Check that the file is the one that the run's manifest, and every registered version of the run, tell the
    digest of.
    """
    digest, recorded = file_digest(chosen.model), chosen.lineage.digest
    registered = {tags["digest"] for tags in versions if tags.get("uid") == chosen.uid and "digest" in tags}
    if recorded is not None and recorded != digest:
        words = f"{chosen.model} is not the file that its run wrote: sha256 {digest[:12]}, "
        words += f"the manifest says {recorded[:12]}"
        if chosen.row is not None:
            words += (
                f"; python -m platform.export {chosen.uid} > run.yaml, python -m platform.train run.yaml make it again"
            )
        return Gate("artifact", False, words)
    if registered and digest not in registered:
        other = min(registered)[:12]
        return Gate(
            "artifact", False, f"{chosen.model} is not the file that was registered: sha256 {digest[:12]}, not {other}"
        )
    if recorded is None:
        return Gate("artifact", False, f"no manifest tells the digest of {chosen.model} (sha256 {digest[:12]})")
    return Gate("artifact", True, f"sha256 {digest[:12]}, as its run wrote it")


def environment_gate(chosen: Candidate, pack: Pack) -> Gate:
    """Check that the run was made by this version of the method, on these data."""
    version, fingerprint = chosen.lineage.version, chosen.lineage.fingerprint
    wrong = []
    if version != METHOD_VERSION:
        wrong.append(f"the run was made by method version {version}, this is {METHOD_VERSION}")
    if fingerprint is None:
        wrong.append("nobody knows which data it was trained on")
    elif fingerprint != pack.fingerprint:
        wrong.append(
            f"{pack.root} holds other data ({pack.fingerprint[:12]}) than it was trained on ({fingerprint[:12]})"
        )
    if wrong:
        return Gate("environment", False, "; ".join(wrong))
    return Gate("environment", True, f"method version {METHOD_VERSION}, data {pack.fingerprint[:12]}")


def confirm_gate(
    spec: SweepSpec,
    rows: Sequence[TrialRow],
    again: Sequence[TrialRow],
    folder_of: Callable[[TrialRow], Path],
    row: TrialRow | None,
) -> Gate:
    """Check that the run's configuration ran again with fresh seeds, and is not shown to be worse than the reference.

    `rows` are the sweep's trials, `again` its confirm runs; `row` is the run's, None for one of no sweep.
    """
    if row is None:
        return Gate("confirm", False, "no sweep has confirmed this checkpoint")
    searched = next((other for other in rows if other.uid == (row.confirms or row.uid)), None)
    if searched is None:
        return Gate("confirm", False, f"{row.uid} ran for the comparison, it is no configuration of the search")
    complete = [other for other in rows if other.state is State.COMPLETE]
    reference = next((other for other in complete if other.role == REFERENCE), None)
    if reference is not None and searched.values == reference.values:
        return Gate("confirm", True, "it is the reference")
    try:
        options = confirm.options_of(spec.confirm, again)
        chosen = confirm.candidates(rows, options.top_k)
        runs = confirm.counted(chosen, again, confirm.race_of(chosen, options))
        folders = {run.uid: folder_of(run) for run in runs}
        confirmed = confirm.confirmed(complete, runs, folders, spec.base_config.cam, spec.objective)
    except DamagedFile as error:
        return Gate("confirm", False, f"a confirm run cannot be read: {error}")
    mine = next((c for c in confirmed if c.values == searched.values), None)
    theirs = next((c for c in confirmed if reference is not None and c.uid == reference.uid), None)
    if mine is None:
        return Gate("confirm", False, "its configuration did not run again with fresh seeds")
    if theirs is None:
        return Gate("confirm", False, "the reference did not run again, there is nothing to compare with")
    fewest = min(len(mine.mious), len(theirs.mious))
    if fewest < confirm.LEAST_SEEDS or len(mine.counts[0]) < confirm.LEAST_IMAGES:
        seeds = f"{fewest} fresh seed{'s' * (fewest != 1)}, {confirm.LEAST_SEEDS} are needed"
        short = seeds if fewest < confirm.LEAST_SEEDS else "one image"
        return Gate("confirm", False, f"not tested against the reference: {short}")
    seed, rule = spec.search_options.seed, confirm.rule_of(chosen, options)
    low, high = confirm.interval(theirs, mine, confirmed, max(1, len(confirmed) - 1), seed, rule)
    words = f"{mine.mean - theirs.mean:+.1f} [{low:.1f}, {high:.1f}] against the reference on the confirm images"
    return Gate("confirm", high >= 0, words if high >= 0 else f"shown to be worse: {words}")
