"""The random walk's numbers chosen on masks, in one pass and without training, and whether its CAM is better.

Maps of the images of data.score are propagated at every alpha and number of steps around the rule
(cpn/propagation/walk_rule.py). The best mIoU of the select images decides; the confirm images tell what it is worth, as
they do of the CAM's masks at the run's beta. With `random_walk.crf` the choice is made before that
CRF, which would have to run for each setting.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cpn.core.errors import InputError
from cpn.data.map_files import load_maps
from cpn.propagation.random_walk import labels_by_setting
from cpn.propagation.walk_rule import WalkChoice, WalkGrid, walk_grid
from cpn.scoring.metrics import curve_counts, hard_counts, miou
from cpn.scoring.selection import select_and_confirm
from cpn.stages.affinity_stages import affinity_network
from cpn.stages.inputs import Inputs
from cpn.stages.irn_stages import edge_network, irn_label, irn_maps
from cpn.stages.stage_manifest import WalkReport, WalkSetting

SAMPLED = 64
"""Images whose size is looked at."""

RANKED = ("cam", "walk", "rule")
"""Of which mIoU is told."""


def grid_of(inputs: Inputs) -> WalkGrid:
    """Return the settings to try for these inputs; of IRN's walk its one setting."""
    config = inputs.config
    if config.random_walk.kind == "irn":
        rule = WalkChoice(None, config.irn.walk_logt, config.irn.walk_radius)
        return WalkGrid((None,), (rule.logt,), rule)
    split, stride = inputs.split, affinity_network(config).stride
    sample = range(0, len(split), -(-len(split) // SAMPLED))
    shapes = [split.image(index).shape for index in sample]
    return walk_grid(config.random_walk, inputs.beta, [(-(-h // stride), -(-w // stride)) for h, w, _ in shapes])


def count_settings(inputs: Inputs, grid: WalkGrid, indices: Sequence[int]) -> NDArray[np.int64]:
    """Return the counts of the images at `indices` of the scored list: int64 (N, 1 + len(grid.pairs), 3, C), the CAM's
    at 0.

    Raises InputError for an image without a mask, or that is not in the training list.
    """
    scored, config, beta = inputs.pack.split(inputs.config.data.score), inputs.config, _beta(inputs)
    known = frozenset(inputs.split.ids)
    irn = config.random_walk.kind == "irn"
    network, edges = (None, edge_network(inputs)) if irn else (affinity_network(config, inputs), None)
    rows = []
    for index in indices:
        name, truth = scored.ids[index], scored.mask(index)
        if truth is None or name not in known:
            raise InputError(
                f"{name}: list {scored.name!r} scores it, but it has no "
                f"{'mask' if truth is None else 'maps'}; data.train must hold data.score"
            )
        maps, present = load_maps(inputs.folders["cam"] / f"{name}.npz")
        image = scored.image(index)
        counts = [curve_counts(maps, present, truth, inputs.classes, [beta])[0]]
        if edges is not None:
            labels = iter([irn_label(image, irn_maps(inputs, maps), present, edges, config.irn)])
        else:
            assert network is not None
            alphas = [alpha for alpha in grid.alphas if alpha is not None]
            walk, radius = config.random_walk, grid.rule.radius
            labels = labels_by_setting(image, maps, present, network, walk.beta, radius, alphas, grid.logts)
        counts += [hard_counts(label, truth, inputs.classes) for label in labels]
        rows.append(np.stack(counts))
    return np.stack(rows)


def chosen(inputs: Inputs, grid: WalkGrid, counts: NDArray[np.int64] | None) -> WalkReport:
    """Return the choice, from counts (N, 1 + len(grid.pairs), 3, C) of the whole scored list, None where there are no
    masks.

    The first of equals is taken. With keep_if `better` a walk below its CAM on the select images is not used.
    """
    rule, config, beta = grid.rule, inputs.config.random_walk, _beta(inputs)
    if counts is None:
        words = f"random walk: {_setting_words(rule)}, by rule alone: there are no masks"
        return WalkReport(choice=rule, rule=rule, metrics={**_numbers(rule, beta)}, grid=(), words=words)
    sets = select_and_confirm(inputs.pack.split(inputs.config.data.score).ids, inputs.config.cam)
    select, confirm = (100 * miou(counts[indices].sum(0)) for indices in sets)
    best = int(select[1:].argmax())
    at_rule = grid.pairs.index((rule.alpha, rule.logt))
    alpha, logt = grid.pairs[best]
    used = config.keep_if == "always" or bool(select[1 + best] >= select[0])
    choice = WalkChoice(alpha, logt, rule.radius, used)
    metrics = _numbers(choice, beta)
    for name, row in zip(RANKED, (0, 1 + best, 1 + at_rule), strict=True):
        metrics |= {f"miou_{name}_select": float(select[row]), f"miou_{name}_confirm": float(confirm[row])}
    both = {name: f"{metrics[f'miou_{name}_select']:.1f} / {metrics[f'miou_{name}_confirm']:.1f}" for name in RANKED}
    comparison = f"mIoU on select / confirm images {both['walk']}, its CAM {both['cam']}"
    comparison += f", the rule alone ({_setting_words(rule)}) {both['rule']}" if len(grid.pairs) > 1 else ""
    words = f"random walk: {_setting_words(choice)}; {comparison}"
    if not used:
        words = "random walk: a miss, it lowers its CAM and is not used, the pseudo labels are the CAM's masks at beta "
        words += f"{beta:.2f}; {_setting_words(choice)}: {comparison}"
    table = tuple(
        WalkSetting(alpha=alpha, logt=logt, miou_select=float(select[at]), miou_confirm=float(confirm[at]))
        for at, (alpha, logt) in enumerate(grid.pairs, 1)
    )
    return WalkReport(choice=choice, rule=rule, metrics={**metrics}, grid=table, words=words)


def _numbers(choice: WalkChoice, beta: float) -> dict[str, float]:
    """Return the choice as metrics; `used` is 1 or 0."""
    numbers = {"beta": beta, "steps": 2.0**choice.logt, "radius": float(choice.radius), "used": float(choice.used)}
    return numbers if choice.alpha is None else {"alpha": choice.alpha, **numbers}


def _setting_words(choice: WalkChoice) -> str:
    """Describe a setting of the walk in words."""
    alpha = "IRN's, " if choice.alpha is None else f"alpha {choice.alpha:.3g}, "
    return f"{alpha}{2**choice.logt} steps of radius {choice.radius}"


def _beta(inputs: Inputs) -> float:
    if inputs.beta is None:
        raise ValueError("the walk follows the run, but the run's beta was not given")
    return inputs.beta
