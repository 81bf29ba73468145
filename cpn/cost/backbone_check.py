"""The checks of `python -m cpn.backbone --check NAME`: the contract of a backbone, and what one costs.

Everything runs on the CPU on small images, and on the meta device, which knows shapes and computes no numbers. A check
that fails has a cure; a note is worth knowing and no fault.
"""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from cpn.config import config_from
from cpn.core.contents import is_code
from cpn.core.errors import InputError
from cpn.core.own_code import own_code
from cpn.cost.operations import forward_operations
from cpn.cost.training_memory import GIB, step_bytes
from cpn.data.transforms import normalise, resize
from cpn.models.backbone import (
    Backbone,
    frozen_of,
    hold_batch_norm,
    interface_fault,
    make_backbone,
    maps_fault,
    training_batch_norms,
)
from cpn.models.imagenet import IMAGENET, published_file
from cpn.models.weights import load_backbone_weights
from cpn.scoring.shown_sizes import aligned_side

MAPS = ("stage 3", "stage 4", "top")
SIDE = 448
"""Side in pixels at which memory and cost are counted."""
PHOTOGRAPH = 257
"""Longer side in pixels at which the photographs are shown, moved to k * stride + 1."""
TOLERANCE = 1e-3
"""Largest difference of two maps that count as the same, relative to the largest value."""
ALIKE = 10.0
"""Largest ratio of the scales of a map and of the image that needs no word."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    check: str
    result: Literal["passed", "note", "failed"]
    finding: str
    cure: str = ""


@dataclass(frozen=True)
class Subject:
    """The backbone that is checked."""

    name: str
    module: nn.Module
    weights: str | None
    classes: int
    """Foreground classes."""

    @property
    def backbone(self) -> Backbone:
        """The module by its interface."""
        return cast(Backbone, self.module)

    def run(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Its three maps of normalised images (B, 3, H, W). InputError when its forward raises anything."""
        with own_code(self.name, "its forward"):
            return self.backbone(images)

    def noise(self, count: int) -> Tensor:
        """Return images of fixed noise, (count, 3, 4 stride + 1, 5 stride + 1)."""
        sides = 4 * self.backbone.stride + 1, 5 * self.backbone.stride + 1
        return torch.randn(count, 3, *sides, generator=torch.Generator().manual_seed(0))


def passed(check: str, finding: str) -> Check:
    """Return a passed check."""
    return Check(check, "passed", finding)


def layers(subject: Subject) -> Check:
    """Return whether the state dict can be written, and a second backbone of the factory takes it."""
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in subject.module.parameters()):
        return Check("layers", "failed", "lazy layers have no shape yet", "give every layer its sizes in the factory")
    with own_code(subject.name, "its state_dict()"):
        state = subject.module.state_dict()
    if any(not isinstance(value, Tensor) for value in state.values()):
        odd = next(name for name, value in state.items() if not isinstance(value, Tensor))
        return Check("layers", "failed", f"{odd} in the state dict is no tensor", "keep tensors alone in it")
    try:
        save({name: value.contiguous() for name, value in state.items()})
    except (RuntimeError, ValueError) as error:  # two names for one tensor
        reason = " ".join(str(error).split())[:160]
        return Check("layers", "failed", f"cannot be saved: {reason}", "give every parameter one name, or clone it")
    again = make_backbone(subject.name).state_dict()
    differ = [name for name in state.keys() | again.keys() if _shape(state, name) != _shape(again, name)]
    if differ:
        text = f"a second backbone has other layers: {', '.join(sorted(differ)[:3])}"
        return Check("layers", "failed", text, "let the factory make the same network each time")
    numbers = sum(parameter.numel() for parameter in subject.module.parameters())
    return passed("layers", f"{len(state)} tensors, {numbers / 1e6:.2f} million parameters; they save and load by name")


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def weights(subject: Subject) -> Check:
    """Return whether the pretrained weights fit; they are loaded, and the later checks see them."""
    if subject.weights is None:
        return Check(
            "weights", "note", "as the factory makes them", "--weights FILE checks the file of network.weights"
        )
    path = published_file(subject.module) if subject.weights == IMAGENET else Path(subject.weights)
    try:
        report = load_backbone_weights(subject.module, path)
    except InputError as error:
        return Check("weights", "failed", str(error), "see there")
    if warning := report.warning():
        return Check("weights", "note", warning, "check the file, or network.backbone")
    return passed("weights", report.sentence())


def shapes(subject: Subject) -> Check:
    """Return whether the three maps have the promised channels and ceil(side / stride) cells at sizes of all kinds."""
    stride = subject.backbone.stride
    sizes = [(33, 50), (2 * stride, 3 * stride), (2 * stride + 1, 3 * stride + 1), (4 * stride + 1, 2 * stride - 1)]
    for height, width in sizes:
        if fault := maps_fault(subject.module, subject.name, height, width):
            cure = f"pad so that every map has ceil(side / stride) cells, or correct stride (is {stride}) and channels"
            return Check("shapes", "failed", fault, cure)
    listed = ", ".join(f"{height} x {width}" for height, width in sizes)
    return passed("shapes", f"channels {list(subject.backbone.channels)} at stride {stride} for {listed}")


@torch.no_grad()
def repeatable(subject: Subject) -> Check:
    """Check that in evaluation mode the maps are finite, repeatable and each image's own, and the images unchanged."""
    subject.module.eval()
    images = subject.noise(2)
    originals = images.clone()
    first, second, alone = subject.run(images), subject.run(originals.clone()), subject.run(originals[:1].clone())
    if not torch.equal(images, originals):
        return Check("maps", "failed", "forward writes into the images", "remove the in-place operation on its input")
    if not all(bool(torch.isfinite(maps).all()) for maps in first):
        return Check("maps", "failed", "NaN or infinity on noise", "check the weights, and divisions in forward")
    if not all(_alike(one, two) for one, two in zip(first, second, strict=True)):
        cure = "use nn.Dropout and the like, which rest in evaluation mode"
        return Check("maps", "failed", "the same images have other maps the second time", cure)
    if not all(_alike(one[:1], two) for one, two in zip(first, alone, strict=True)):
        cure = "let no layer mix the images of a batch"
        return Check("maps", "failed", "an image's maps depend on the other images of its batch", cure)
    return passed("maps", "finite, repeated, and each image's by itself")


def _alike(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= TOLERANCE * one.abs().max())


def batch_norm(subject: Subject) -> Check:
    """Return whether batch norm stays in evaluation mode after .train()."""
    norms = [m for m in subject.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    moving = training_batch_norms(subject.module.train())
    if not norms:
        return passed("batch norm", "none")
    if not moving:
        return passed("batch norm", f"{len(norms)}, in evaluation mode after .train()")
    finding = f"{len(moving)} of {len(norms)} would train: the CAM network and AffinityNet keep them in evaluation mode"
    return Check("batch norm", "note", finding, "nothing to do; deeplab.batch_norm_train rules DeepLab's")


def frozen(subject: Subject) -> Check:
    """Return whether frozen_parameters() lists parameters of the module, and leaves some to train."""
    with own_code(subject.name, "its frozen_parameters()"):
        listed = list(subject.backbone.frozen_parameters())
    own = {id(parameter) for parameter in subject.module.parameters()}
    strangers = sum(id(parameter) not in own for parameter in listed)
    if strangers:
        cure = "return the module's own nn.Parameter objects, no names, copies or modules"
        return Check("frozen", "failed", f"{strangers} of {len(listed)} are no parameters of the module", cure)
    ids = {id(parameter) for parameter in listed}
    fixed = [n for n, p in subject.module.named_parameters() if not p.requires_grad and id(p) not in ids]
    finding = f"{len(ids)} of {len(own)} parameters"
    if fixed:
        finding += f"; {len(fixed)} more have requires_grad False, e.g. {fixed[0]}"
        return Check("frozen", "note", finding, "list them in frozen_parameters(): DeepLab trains what is not listed")
    if not ids:
        return Check("frozen", "note", finding, "CPN freezes the first layers and the weights of batch norm")
    if ids == own:
        return Check("frozen", "note", finding, "nothing of it is trained, the new layers alone learn")
    return passed("frozen", finding)


def gradients(subject: Subject) -> Check:
    """Check which trained parameters each of the maps reaches; the top has to reach all of them."""
    module = subject.module.train()
    hold_batch_norm(module)
    ids = {id(parameter) for parameter in frozen_of(subject.module)}
    trained = {n: p for n, p in module.named_parameters() if id(p) not in ids and p.requires_grad}
    if not trained:
        return Check("gradients", "note", "nothing is trained", "fine if the new layers alone shall learn")
    maps = subject.run(subject.noise(2))
    reached = [_reached(each, trained) for each in maps]
    counts = ", ".join(f"{name} {len(names)}" for name, names in zip(MAPS, reached, strict=True))
    finding = f"of {len(trained)} trained parameters: {counts}"
    if not reached[2]:
        return Check("gradients", "failed", finding, "return the top without detach(), no_grad() or .data")
    if lost := [name for name in trained if name not in reached[2]]:
        finding += f"; not from the top, which alone trains it: {', '.join(lost[:3])}"
        return Check("gradients", "failed", finding, "list these in frozen_parameters(), or leave the layers out")
    if not all(reached):
        return Check("gradients", "note", finding, "fine where all below that map is frozen, else remove detach()")
    return passed("gradients", finding)


def _reached(maps: Tensor, trained: dict[str, nn.Parameter]) -> list[str]:
    if not maps.requires_grad:
        return []
    derivatives = torch.autograd.grad(maps.square().sum(), list(trained.values()), retain_graph=True, allow_unused=True)
    return [name for name, gradient in zip(trained, derivatives, strict=True) if gradient is not None]


@torch.no_grad()
def tap_scale(subject: Subject) -> Check:
    """Root mean square of the image and of the three maps on three photographs that scikit-image brings."""
    from skimage import data

    subject.module.eval()
    squares = []
    for read in (data.astronaut, data.chelsea, data.coffee):
        photograph: NDArray[np.uint8] = read()  # type: ignore[no-untyped-call]
        factor = PHOTOGRAPH / max(photograph.shape[:2])
        height, width = (aligned_side(factor * side, subject.backbone.stride) for side in photograph.shape[:2])
        image = normalise(torch.from_numpy(resize(np.ascontiguousarray(photograph), (height, width))[None]), None)
        squares.append([float(each.float().square().mean()) for each in (image, *subject.run(image))])
    image_rms, *taps = np.sqrt(np.mean(squares, axis=0)).tolist()
    finding = f"RMS on photographs: image {image_rms:.2g}, " + ", ".join(
        f"{name} {value:.2g}" for name, value in zip(MAPS, taps, strict=True)
    )
    if not all(np.isfinite(taps)) or min(taps) == 0:
        return Check("scale", "failed", finding, "check the weights: a map without values carries nothing")
    far = [name for name, value in zip(MAPS[:2], taps[:2], strict=True) if not 1 / ALIKE < value / image_rms < ALIKE]
    if far:
        cure = f"{' and '.join(far)} stand beside the image in X: --set network.x_scale=unit evens them out"
        if subject.weights is None:
            cure += "; --weights FILE measures those of its weights"
        return Check("scale", "note", finding, cure)
    return passed("scale", finding)


def meta(subject: Subject) -> Check:
    """Return whether it is made and run on the meta device, by which memory and cost are known before a run."""
    try:
        with torch.device("meta"):
            module = make_backbone(subject.name)
            fault = maps_fault(module, subject.name, 33, 50)
    except InputError as error:
        return Check("meta device", "note", str(error), "nothing to do: memory is not foretold, cost roughly")
    if fault:
        return Check("meta device", "note", fault, "nothing to do: memory is not foretold, cost roughly")
    return passed("meta device", "runs without numbers")


def cost(subject: Subject) -> Check:
    """Return counted operations and least memory of the CAM network over it at `SIDE` x `SIDE`."""

    values = {"network": {"backbone": subject.name}, "data": {"crop": SIDE}, "train": {"batch_size": 1}}
    config = config_from(values, "--check")
    operations = forward_operations(config.network, subject.classes + 1, SIDE, SIDE)
    least = step_bytes(config, subject.classes + 1)
    finding = f"{operations / 1e9:.1f} GFLOP an image forward; "
    finding += (
        "memory unknown" if least is None else f"a training step of one image holds at least {least / GIB:.2f} GiB"
    )
    crop = aligned_side(SIDE, subject.backbone.stride)
    return passed(f"cost at {SIDE}", f"{finding}; crop {crop} fits the stride")


def pyramid(subject: Subject) -> Check:
    """Return whether IRN can walk on it."""
    from cpn.propagation.irn_network import PyramidBackbone, pyramid_backbone

    if not isinstance(subject.module, PyramidBackbone):
        return Check("pyramid", "note", "none", "only random_walk.kind irn needs one; set irn.backbone for it")
    try:
        pyramid_backbone(subject.name)
    except InputError as error:
        return Check("pyramid", "failed", str(error), "correct it, or remove `pyramid`")
    return passed("pyramid", "five maps for random_walk.kind irn")


STEPS: tuple[Callable[[Subject], Check], ...] = (
    layers, shapes, weights, repeatable, batch_norm, frozen, gradients, tap_scale, meta, cost, pyramid,
)  # fmt: skip
"""What is checked once the interface holds; the others need the shapes."""


def run_checks(name: str, weights: str | None, classes: int) -> list[Check]:
    """Run every check of the backbone `name`; those that the first faults make meaningless are left out.

    Raises InputError when it cannot be made at all.
    """
    module = make_backbone(name)
    subject = Subject(name, module, weights, classes)
    own = own_code(name, "one of its attributes or methods") if is_code(name) else nullcontext()
    with own:
        fault = interface_fault(module)
    if fault:
        cure = "set channels to the three maps' channels and stride to the input's side over theirs"
        if "parameters" in fault:
            cure = "make the layers without a device, as nn.Conv2d(3, 8, 3) does"
        return [Check("interface", "failed", fault, cure)]
    done = [passed("interface", "an nn.Module with channels, stride and frozen_parameters()")]
    with torch.random.fork_rng(devices=[]):
        for step in STEPS:
            own = own_code(name, "one of its attributes or methods") if is_code(name) else nullcontext()
            try:
                with own:
                    done.append(step(subject))
            except InputError as error:  # the user's code raised: the line names file and line
                done.append(Check(step.__name__.replace("_", " "), "failed", str(error), "correct it there"))
            if step is shapes and done[-1].result == "failed":
                break
    return done


def check(name: str, weights: str | None, classes: int, as_json: bool) -> None:
    """Run and print every check. Raises InputError when one failed, in one line that names the first."""
    done = run_checks(name, weights, classes)
    if as_json:
        for each in done:
            row = {"check": each.check, "result": each.result, "found": each.finding, "cure": each.cure}
            print(json.dumps(row))  # scripts read these keys
    else:
        print_table(name, done)
    bad = [each for each in done if each.result == "failed"]
    if not (as_json and bad):  # the error is the one line on standard error
        print(f"next: {next_command(name, weights, bool(bad))}", file=sys.stderr if as_json else sys.stdout)
    if bad:
        first = bad[0]
        # What the user's code raised is a whole sentence already.
        whole = first.finding.startswith("network.backbone: ")
        message = (
            first.finding if whole else f"network.backbone: {name!r}: {first.check}: {first.finding}; {first.cure}"
        )
        raise InputError(message + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))


def print_table(name: str, done: Sequence[Check]) -> None:
    """Print one row a check; under it what to do."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"backbone {name}", title_justify="left")
    for head in ("check", "result", "found", "what to do"):
        table.add_column(head, overflow="fold")
    for each in done:
        table.add_row(each.check, "FAILED" if each.result == "failed" else each.result, each.finding, each.cure)
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(table)
    results = [each.result for each in done]
    counted = [(results.count(result), result) for result in ("passed", "note", "failed")]
    print(", ".join(f"{number} {result}{'s' * (result == 'note' and number != 1)}" for number, result in counted))


def next_command(name: str, weights: str | None, failed: bool) -> str:
    """Return the next command: the check again after a failure, else the plan of a sweep with this backbone."""
    if failed:
        weights_option = [] if weights is None else ["--weights", weights]
        return shlex.join(["python", "-m", "cpn.backbone", "--check", name, *weights_option])
    sets = ["--run-code"] if is_code(name) else []
    sets += ["--set", f"network.backbone={name}"]
    if weights is not None:
        sets += ["--set", f"network.weights={weights}"]
    return shlex.join(["python", "-m", "platform.sweep", "search_spaces/patch.yaml", "--dry-run", *sets])
