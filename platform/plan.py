"""The price of a sweep before it starts: how many runs, and what they cost at most on the card of the estimate."""

from dataclasses import dataclass

from cpn.config import Config, with_values

from .confirm import CAM_BASELINE, cam_baseline_values
from .spec import SweepSpec

# method.md, Cost: ResNet38 at 448 x 448 takes 400 GMAC an image and branch; a training step is forward and backward,
# three times the forward. An RTX 3090 sustains about 30 TFLOP/s by estimate, in bf16.
FORWARD_FLOP = 2 * 400e9
TRAINING_FACTOR = 3
SUSTAINED_FLOPS = 30e12
SCENE_SHARE = 2e-5
"""The scene network's cost relative to ResNet38 at the same image size; small enough not to matter on a GPU."""
BRANCHES = {"cpn": 3, "pair_classification": 3, "seam": 1.1, "classification": 1}
LATER_NETWORKS = 2
"""AffinityNet and DeepLab, about as large as the CAM network."""
VOC_IMAGES = {"trainaug": 10582, "train": 1464, "val": 1449}


@dataclass(frozen=True)
class Price:
    """Runs and their estimated cost."""

    trials: int | None
    """Search trials, the reference among them; None without a limit."""
    confirm_runs: int
    gpu_hours_per_trial: float
    gpu_hours: float | None
    """All runs at full length; pruning can only save."""
    money: float | None
    """`gpu_hours` at `budget.price_per_gpu_hour`, None without a price."""
    disk_gb: float


def estimate(spec: SweepSpec) -> Price:
    """The price of `spec`, by operation counts; says nothing about the stages after the CAM run."""
    config = spec.base_config
    trials = spec.trial_limit
    confirm = confirm_runs(spec)
    hours = trial_hours(config)
    plain = spec.confirm.seeds if spec.confirm.top_k else 1
    plain_hours = trial_hours(with_values(config, cam_baseline_values(spec), CAM_BASELINE))
    total = hours * (trials + confirm - plain) + plain_hours * plain if trials is not None else None
    stored = (trials or 0) + confirm
    each = spec.budget.price_per_gpu_hour
    money = total * each if total is not None and each is not None else None
    return Price(trials, confirm, hours, total, money, disk_gb(config, stored))


def confirm_runs(spec: SweepSpec) -> int:
    """Runs after the search: top k, the reference and cam_baseline, each with its fresh seeds."""
    if not spec.confirm.top_k:
        return 1
    limit = spec.trial_limit
    compared = spec.confirm.top_k if limit is None else min(spec.confirm.top_k, limit - 1)
    return spec.confirm.seeds_of_reference + spec.confirm.seeds * (compared + len([CAM_BASELINE]))


def trial_hours(config: Config) -> float:
    """GPU-hours of one full-length run on an RTX 3090, estimated from operation counts."""
    count = list_length(config, config.data.train)
    scored = list_length(config, config.data.score)
    forward = FORWARD_FLOP * (config.data.crop / 448) ** 2
    if config.network.backbone == "scene":
        forward *= SCENE_SHARE
    training = count * config.train.epochs * BRANCHES[config.train.objective] * TRAINING_FACTOR * forward
    passes = sum(scale**2 for scale in config.cam.scales) * (2 if config.cam.flip else 1)
    scoring = scored * forward * (passes + config.train.epochs)
    return (training + scoring) / SUSTAINED_FLOPS / 3600


def list_length(config: Config, name: str) -> int:
    """Images of a list: of the scenes that are described, else VOC 2012's."""
    scenes = config.data.scenes if config.data.root is None else None
    if scenes is not None:
        return {"train": scenes.train, "val": scenes.val}.get(name, scenes.train + scenes.extra)
    return VOC_IMAGES.get(name, VOC_IMAGES["trainaug"])


def disk_gb(config: Config, runs: int) -> float:
    """Gigabytes of networks: of each of `runs` runs in its folder and again among MLflow's artifacts, of AffinityNet
    and DeepLab likewise, and two checkpoints (weights and momentum) of the run that is training.

    Data, maps and pseudo labels are not in it.
    """
    parameters = 3e4 if config.network.backbone == "scene" else 105.4e6
    return parameters * 4 * (2 * (runs + LATER_NETWORKS) + 2 * 2) / 1e9
