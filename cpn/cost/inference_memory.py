"""The least memory that reading an image takes, and whether it is there: CAMs, DeepLab's masks, walks, the dense CRF.

What is done with an image, the passes of all scales and the sums at its own size, is done on the meta device, which
knows shapes and computes no numbers, and what is alive at its peak is counted. It is a lower bound: the workspace of
convolutions and what an allocator wastes are not in it. So a list whose largest image does not fit is refused before
anything is read of it; what runs out of memory all the same names its image (cpn/data/image_memory.py).
"""

import math
import resource
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpn.config import Config
from cpn.config.cam import CamConfig
from cpn.config.data import DataConfig
from cpn.config.deeplab import DeepLabConfig, decided
from cpn.config.network import NetworkConfig
from cpn.core.errors import InputError, WorkError
from cpn.data.image_memory import CAM_CURE, DEEPLAB_CURE, SCALE_DOWN
from cpn.data.voc import Pack, Split
from cpn.models.backbone import Backbone, build_backbone
from cpn.models.network import CPN, build_network
from cpn.propagation.affinity import AffinityNet
from cpn.propagation.irn_network import IrnNet, pyramid_backbone
from cpn.scoring.cam import normalised_total, sums_at, view_maps
from cpn.scoring.shown_sizes import limited_size, sizes_at_scales
from cpn.segmentation.deeplab import DeepLab, summed_logits

GIB = 2**30
LEAST_LABELS = 2
"""Classes that DeepLab's CRF has at least; with one there is none to run."""
SPARE = 0.7
"""Of the free memory, what a limit that is proposed as a cure fills."""
CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux says what a container may hold."""


class Largest(NamedTuple):
    """The image of a list that takes most memory."""

    id: str
    height: int
    width: int
    present: int = 1
    """How many classes it shows, as far as that is known."""


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def held_bytes(network: nn.Module, work: Callable[[], object]) -> float:
    """Return the bytes of a network's weights and of what `work` holds at most, without gradients.

    The network is in evaluation mode, on the meta device or on any other.
    """
    weights = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    with torch.no_grad(), _Live() as live:
        work()
    return float(weights + live.peak)


def cam_bytes(
    network: NetworkConfig, cam: CamConfig, classes: int, height: int, width: int, present: int = 1
) -> float | None:
    """Return the bytes held at least while the CAM of an image of height x width that shows `present` classes is
    computed.

    `classes` is C. None where a user's backbone does not run without numbers.
    """
    return _counted(("cam", network, classes), _cam, cam, height, width, present)


def deeplab_bytes(backbone: str, settings: DeepLabConfig, classes: int, height: int, width: int) -> float | None:
    """Count the bytes held at least while DeepLab predicts an image's mask; None while its schedule is undecided."""
    if settings.scales is None or settings.dilation is None or settings.batch_norm_train is None:
        return None
    kind = ("deeplab", backbone, settings.width, settings.dilation, classes)
    return _counted(kind, _deeplab, settings, height, width)


def walk_bytes(config: Config, height: int, width: int) -> float | None:
    """Count the bytes held at least in the forward pass of the walk's network, AffinityNet or IRN's, on an image."""
    if config.random_walk.kind == "irn":
        kind = ("irn", config.irn.backbone or config.network.backbone, config.irn.displacement)
        return _counted(kind, _pass, 2, height, width)
    return _counted(("affinity", config.network.backbone, config.affinity.widths), _padded_pass, height, width)


LATTICES = 100
"""Bytes that the dense CRF holds for each pixel: in lattices of 5 and 2 dimensions its place and weight at 6 and 3
vertices, 4 bytes each, and its coordinates. What the vertices hold depends on the image, and is not counted.
"""
SCORES = 24
"""And for each pixel and label: 4 bytes of energy, the CRF's own copy, its two last steps, one result, its copy."""


def crf_bytes(labels: int, height: int, width: int) -> float:
    """Return the bytes held at least while the dense CRF (cpn/propagation/crf.py) refines scores of so many labels."""
    return float(height * width * (LATTICES + SCORES * labels if labels > 1 else 4))


def crf_stage_bytes(present: int, height: int, width: int) -> float:
    """Count the bytes held at least in the stage crf: the CRF's own, the maps, and the scores with background."""
    return crf_bytes(present + 1, height, width) + 4 * height * width * (present + present + 1)


def _pass(network: nn.Module, views: int, height: int, width: int) -> None:
    network(torch.zeros(views, 3, height, width, device="meta"))


def _padded_pass(network: nn.Module, height: int, width: int) -> None:
    stride = cast(Backbone, network.backbone).stride
    _pass(network, 1, *(math.ceil(side / stride) * stride for side in (height, width)))


def _cam(network: nn.Module, cam: CamConfig, height: int, width: int, present: int) -> None:
    """Compute the CAM as `multi_scale_maps` does, without the image."""
    net = cast(CPN, network)
    sizes = sizes_at_scales(height, width, cam.scales, cam, cast(Backbone, net.backbone).stride)
    raw = (view_maps(net, torch.zeros(1, 3, *size, device="meta"), cam) for size in sizes)
    normalised_total(sums_at(raw, torch.zeros(present, dtype=torch.long), (height, width)))


def _deeplab(network: nn.Module, settings: DeepLabConfig, height: int, width: int) -> None:
    """Compute DeepLab's scores as `predict` does before the CRF, without the image."""
    net = cast(DeepLab, network)
    stride = cast(Backbone, net.backbone).stride if settings.sizes == "aligned" else None
    sizes = [limited_size(height, width, scale, stride, settings.max_pixels) for scale in decided(settings.scales)]
    shown = (torch.zeros(1, 3, *size, device="meta") for size in sizes)
    logits = summed_logits(net, shown, (height, width), settings.test_flip) / len(sizes)
    functional.softmax(logits, dim=0)


@lru_cache(maxsize=256)
def _counted(kind: tuple[Any, ...], work: Callable[..., None], *arguments: Any) -> float | None:
    """Return the bytes of the weights of a network and of what `work` holds at most with it; None where it cannot be
    made so.
    """
    network = _meta_network(kind)
    if network is None:
        return None
    try:
        return held_bytes(network, lambda: work(network, *arguments))
    except (RuntimeError, InputError):
        return None


@lru_cache(maxsize=16)
def _meta_network(kind: tuple[Any, ...]) -> nn.Module | None:
    """Return a network without numbers; None where a user's backbone cannot be made so."""
    try:
        with torch.device("meta"):
            return _network_of_kind(*kind).eval()
    except (RuntimeError, InputError):
        return None


def _network_of_kind(kind: str, of: Any, *more: Any) -> nn.Module:
    if kind == "cam":
        return build_network(of, *more)
    if kind == "irn":
        return IrnNet(pyramid_backbone(of), *more)
    if kind == "affinity":
        return AffinityNet(build_backbone(of), *more)
    width, dilation, classes = more
    return DeepLab(build_backbone(of), classes, DeepLabConfig(width=width, dilation=dilation))


def largest(split: Split, long_side: int | None = None) -> Largest:
    """Return the image that takes most memory: of the most pixels, or with `long_side` the nearest to a square."""

    def pixels(index: int) -> tuple[float, int]:
        height, width = split.size(index)
        return height * width / (1 if long_side is None else max(height, width) ** 2), -index

    index = max(range(len(split)), key=pixels)
    present = int((split.labels[index] > 0).sum())
    return Largest(split.ids[index], *split.size(index), max(1, present))


def free_bytes(device: torch.device) -> tuple[float, str]:
    """Return the bytes that this process can still take on `device`, and what the device is called."""
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        share = torch.cuda.get_per_process_memory_fraction(device) * whole - torch.cuda.memory_reserved(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(free, share) + unused, torch.cuda.get_device_name(device)
    import psutil

    own = psutil.Process().memory_info()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    allowed = math.inf if limit == resource.RLIM_INFINITY else limit - own.vms
    return min(psutil.virtual_memory().available, allowed, _left_in_group(CONTAINER)), "this machine"


def _left_in_group(group: Path) -> float:
    """Return the bytes that Linux leaves to this process's control group, a container's; infinite without a limit."""
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return math.inf
        used = int((group / "memory.current").read_text())
        rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - used + int(rows.get("inactive_file", 0))  # cached files give way
    except (OSError, ValueError):
        return math.inf


def check_cams(network: NetworkConfig, cam: CamConfig, classes: int, split: Split, device: torch.device) -> None:
    """Raise WorkError, before any image is read, where the CAM of the list's largest image does not fit in memory."""
    image = largest(split, cam.long_side)
    needed = cam_bytes(network, cam, classes, image.height, image.width, image.present)
    pixels = max(map(math.prod, sizes_at_scales(image.height, image.width, cam.scales, cam, 1)))
    _check(
        split, image, "its CAM", needed, device, lambda part: f"{CAM_CURE}: cam.max_pixels={fits(pixels, part)} fits"
    )


def check_deeplab(
    backbone: str, settings: DeepLabConfig, classes: int, split: Split, device: torch.device, crf: bool
) -> None:
    """Raise WorkError where DeepLab on the list's largest image, or with `crf` the CRF on it, does not fit."""
    image = largest(split)
    needed = deeplab_bytes(backbone, settings, classes, image.height, image.width)
    pixels = image.height * image.width * max(settings.scales or (1.0,)) ** 2
    pixels = min(pixels, settings.max_pixels or pixels)
    cure = DEEPLAB_CURE
    _check(
        split, image, "DeepLab's mask of it", needed, device,
        lambda part: f"{cure}: deeplab.max_pixels={fits(pixels, part)} fits",
    )  # fmt: skip
    if crf:
        _check_crf(split, image, crf_bytes(LEAST_LABELS, image.height, image.width))


def check_crf(split: Split, indices: Sequence[int]) -> None:
    """Raise WorkError where the dense CRF on the largest of the images at `indices` does not fit in memory."""
    if indices:
        image = largest(split.subset([split.ids[index] for index in indices]))
        _check_crf(split, image, crf_stage_bytes(image.present, image.height, image.width))


def _check_crf(split: Split, image: Largest, needed: float) -> None:
    _check(split, image, "the dense CRF on it", needed, torch.device("cpu"), lambda part: SCALE_DOWN)


def check_walk(config: Config, split: Split, device: torch.device) -> None:
    """Raise WorkError where the random walk's network on the list's largest image does not fit in memory."""
    image = largest(split)
    needed = walk_bytes(config, image.height, image.width)
    _check(split, image, "the random walk on it", needed, device, lambda part: SCALE_DOWN)


def _check(
    split: Split,
    image: Largest,
    what: str,
    needed: float | None,
    device: torch.device,
    cure: Callable[[float], str],
) -> None:
    if needed is None:
        return
    have, name = free_bytes(device)
    if needed > have:
        raise WorkError(
            f"memory: {image.id}, the largest image of list {split.name} ({image.width}x{image.height} pixels): "
            f"{what} takes at least {needed / GIB:.1f} GiB, and {name} has {max(have, 0) / GIB:.1f} GiB free; "
            f"{cure(SPARE * max(have, 0) / needed)}"
        )


def fits(pixels: float, part: float) -> int:
    """Return the pixels of a view that take `part` of the memory that `pixels` take: memory goes with the area."""
    return max(1024, int(pixels * part / 1000) * 1000)


def list_needs(
    config: Config, classes: int, name: str, most: Largest, shown: Largest, walk: bool = True
) -> dict[str, float | None]:
    """Return the bytes at least by what `config` does with list `name`; None where it is not counted.

    `most` is its image of most pixels, `shown` the one that `cam.long_side` makes largest. Without `walk` the random
    walk's network, which may be code of the user's own, is not made.
    """
    needs: dict[str, float | None] = {}
    if name in (config.data.train, config.data.score):
        needs["CAM"] = cam_bytes(config.network, config.cam, classes, shown.height, shown.width, shown.present)
    if name == config.data.train:
        needs["CRF"] = crf_stage_bytes(most.present, most.height, most.width)
        needs["random walk"] = walk_bytes(config, most.height, most.width) if walk else None
    if name == config.data.val:
        backbone, settings = config.network.backbone, config.deeplab
        needs["DeepLab"] = deeplab_bytes(backbone, settings, classes, most.height, most.width)
        needs["its CRF"] = crf_bytes(LEAST_LABELS, most.height, most.width)
    return needs


def list_words(name: str, most: Largest, needs: Mapping[str, float | None]) -> str:
    """Return a list's largest image and what it needs, in words."""
    bytes_text = ", ".join(f"{what} {'not counted' if n is None else gib_words(n)}" for what, n in needs.items())
    return f"{name}: the largest image, {most.id} ({most.width}x{most.height}), takes in memory at least: {bytes_text}"


def gib_words(size: float) -> str:
    """Return bytes in GiB with two digits, or all whole ones."""
    gib = size / GIB
    return f"{gib:.0f} GiB" if gib >= 99.5 else f"{gib:.2g} GiB"


def default_lines(pack: Pack, training: str) -> list[str]:
    """Describe the memory that each list's largest image takes with the default settings, ResNet-38's."""
    config = Config(data=DataConfig(train=training))
    lines = []
    for name in (name for name in pack.lists if name in (training, config.data.score, config.data.val)):
        split = pack.split(name)
        if len(split):
            most = largest(split)
            needs = list_needs(config, len(pack.classes) + 1, name, most, most)
            lines.append(f"{list_words(name, most, needs)} (resnet38, default settings)")
    return lines
