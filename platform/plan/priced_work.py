"""The price of a sweep's runs and later stages in seconds of wall-clock time: what its remaining time starts from."""

from cpn.config import Config, with_values
from cpn.cost.operations import TRAINING_FACTOR, edge_training_operations, forward_operations
from cpn.segmentation.schedule import iterations_for

from ..base.remaining_time import CONFIRM, SEARCH, Priced, RemainingTime, RunPrice
from ..config.own_code import trains_own_code
from ..config.sweep_spec import SweepSpec
from ..search.confirm import CAM_BASELINE, cam_baseline_values
from .data_size import class_count, list_length, picture
from .estimate import CORE_FLOPS, GPU_FLOPS, START_SECONDS, confirm_counts, corner_configs, on_gpu, operations


def priced_work(spec: SweepSpec, at_once: int) -> RemainingTime:
    """Return runs, confirm runs and stages at the assumed speed, `at_once` runs at a time.

    Without a price, where a network is the user's code, runs count alike and the first report says how long they take.
    CRF and random walk have no price: they count once they run.
    """
    of_reference, of_best, of_plain = confirm_counts(spec)
    again = of_reference + of_best + of_plain
    if trains_own_code(spec):
        phases = {SEARCH: Priced(spec.trial_limit, 0.0), CONFIRM: Priced(again, 0.0)}
        return RemainingTime(phases, {}, at_once, known=False)
    base = spec.base_config
    most = max((config for _, config in corner_configs(spec)), key=operations)
    each, reference = run_price(spec, most).seconds, run_price(spec, base).seconds
    plain = run_price(spec, with_values(base, cam_baseline_values(spec), CAM_BASELINE)).seconds
    confirming = (of_reference * reference + of_best * each + of_plain * plain) / max(1, again)
    stages = stage_seconds(spec, at_once) if spec.table is None else {}
    return RemainingTime({SEARCH: Priced(spec.trial_limit, each), CONFIRM: Priced(again, confirming)}, stages, at_once)


def run_price(spec: SweepSpec, config: Config) -> RunPrice:
    """Return the seconds of one run of `config`, at the assumed speed of its workers: before, during and behind its
    epochs.
    """
    epochs = config.train.epochs
    shorter = config.train.model_copy(update={"epochs": epochs - 1})
    whole = operations(config)
    epoch = whole - operations(config.model_copy(update={"train": shorter})) if epochs > 1 else whole
    speed = flops(spec) * workers(spec)
    return RunPrice(START_SECONDS, epoch / speed, max(0.0, whole - epochs * epoch) / speed, epochs)


def flops(spec: SweepSpec) -> float:
    """Return the operations a second that a GPU, or a core, is assumed to sustain."""
    return GPU_FLOPS if on_gpu(spec) else CORE_FLOPS


def workers(spec: SweepSpec) -> float:
    """GPUs, or cores, that one run holds."""
    return spec.resources.workers * (spec.resources.gpus_per_worker if on_gpu(spec) else 1)


def stage_seconds(spec: SweepSpec, at_once: int) -> dict[str, float]:
    """Return the seconds of the stages that pass images through a network; each has the machine to itself."""
    config, classes = spec.base_config, class_count(spec.base_config)
    height, width = picture(config)
    trained, val = list_length(config, config.data.train), list_length(config, config.data.val)
    once = forward_operations(config.network, classes, height, width)
    crop = forward_operations(config.network, classes, config.data.crop, config.data.crop)
    deeplab = config.deeplab
    steps = deeplab.iterations or iterations_for(trained, deeplab.batch_size)
    scales = deeplab.scales or (1.0,)
    if config.random_walk.kind == "irn":
        irn = config.irn
        backbone = irn.backbone or config.network.backbone
        affinity = irn.epochs * trained * edge_training_operations(backbone, irn.displacement, irn.crop)
    else:
        affinity = config.affinity.epochs * trained * TRAINING_FACTOR * crop
    done = {
        "cam": trained * once * sum(scale**2 for scale in config.cam.scales) * (1 + config.cam.flip),
        "affinity": affinity,
        "deeplab": steps * deeplab.batch_size * TRAINING_FACTOR * crop
        + val * once * sum(scale**2 for scale in scales) * (1 + deeplab.test_flip),
    }
    # A training has one GPU, or all the cores.
    speed = {"cam": workers(spec) * at_once}
    alone = 1.0 if on_gpu(spec) else workers(spec) * at_once
    return {name: count / flops(spec) / speed.get(name, alone) for name, count in done.items()}
