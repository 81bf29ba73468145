"""Training on a device that is not the CPU (tests/card.py): the CPU's numbers, and no step that waits for the device.

Networks of full size train on it by their shapes alone.
"""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.method.rehearsal import irn_job
from benchmarks.method.single_gpu import JOBS
from cpn.config import config_from
from cpn.config.train import Objective
from cpn.cost.step_time import Job, time_steps
from cpn.data.transforms import statistics
from cpn.data.voc import VOC_CLASSES, Pack
from cpn.models.backbone import build_backbone
from cpn.models.network import build_network
from cpn.propagation.affinity import AffinityNet
from cpn.scoring.cam import normalised_total, scale_maps, sums_at
from cpn.segmentation.deeplab import DeepLab, predict_logits
from cpn.training.cam_training import train
from tests.card import CARD, Card
from tests.cpn.training.test_cam_training import SILENT, config, make, make_pack, state

CPU = torch.device("cpu")
SMALL = {
    "preset": ["official", "scenes"],
    "irn": {"radius": 3, "crop": 64, "displacement": True},
    "affinity": {"radius": 3},
}
ALL_JOBS = {**JOBS, "IRN": irn_job}


pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
"""Which torch takes for nothing, as it does not know of the card's numbers."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("card") / "scenes", 8, 32)


@pytest.mark.parametrize("objective", ["cpn", "seam", "pair_classification", "classification"])
def test_a_card_trains_and_resumes_to_the_cpus_numbers(pack: Pack, objective: Objective, tmp_path: Path) -> None:
    both = objective in ("cpn", "seam")
    settings = config(
        train__objective=objective, train__epochs=2, network__pcm=both, network__prcm=objective == "cpn",
        network__x_scale="unit" if both else "released", patches__hidden_value="blur",
    )  # fmt: skip
    here, there = make(settings), make(settings)
    heard = train(here, pack.split("train"), settings, SILENT)
    folder = tmp_path / "checkpoints"
    with Card():
        train(there, pack.split("train"), settings, replace(SILENT, device=CARD, folder=folder))
    shutil.rmtree(folder / "epoch_0002")
    with Card():
        resumed = make(settings)
        told = train(resumed, pack.split("train"), settings, replace(SILENT, device=CARD, folder=folder))
        back = resumed.to(CPU)
    assert [entry["epoch"] for entry in told] == [1, 2]
    for one, other in zip(heard, told, strict=True):
        for name in (name for name in one if name.startswith("loss_")):
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-7), name
    assert state(back).keys() == state(here).keys()
    for name, value in state(here).items():
        torch.testing.assert_close(state(back)[name], value, rtol=1e-3, atol=1e-6, msg=name)


def test_batches_of_a_loader_are_sent_without_waiting(pack: Pack) -> None:
    waits = []
    for batch_size in (8, 2):
        settings = config(train__batch_size=batch_size, network__x_scale="released", patches__hidden_value="blur")
        with Card(numbers=False) as card:
            train(make(settings), pack.split("train"), settings, replace(SILENT, device=CARD))
        waits.append(dict(card.waits))
    assert waits[0] == waits[1], "one step and four of them"


@pytest.mark.parametrize("name", ALL_JOBS)
def test_no_step_waits_for_the_card_but_at_the_looks(name: str) -> None:
    waits = []
    for steps in (1, 3):
        with Card(numbers=False) as card, CARD:
            job, _ = ALL_JOBS[name](config_from(SMALL, "test"), CARD)
            card.waits.clear()
            time_steps(job, CARD, steps, warm_up=0, bf16=False)
        waits.append(dict(card.waits))
    assert waits[0] == waits[1]


def full_size(name: str, channels_last: bool, device: torch.device) -> Job:
    job: Job = JOBS[name](config_from({"preset": "official"}, "test"), device)[0]
    if channels_last:
        job.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return job


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", JOBS)
def test_a_step_of_full_size_stays_on_the_card(name: str, layout: str) -> None:
    with Card(numbers=False), CARD:
        job = full_size(name, layout == "channels_last", CARD)
        time_steps(job, CARD, 1, warm_up=0, bf16=False)
    trained = [parameter for parameter in job.network.parameters() if parameter.requires_grad]
    assert trained and all(p.grad is not None and p.grad.device == CARD for p in trained)
    kept = [value for held in job.optimizer.state.values() for value in held.values() if isinstance(value, Tensor)]
    assert kept and all(value.device == CARD for value in kept if value.dim())


class Ones(TorchDispatchMode):
    """Reads every number as 1: a fake tensor has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].dtype.is_floating_point else 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", JOBS)
def test_a_step_of_full_size_under_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and types as the CPU's autocast has them: bf16 in the network; weights, losses and gradients fp32."""
    kinds: Counter[torch.dtype] = Counter()
    monkeypatch.setattr(nn.Module, "to", lambda module, *_, **__: module)  # which refuses fake tensors
    monkeypatch.setattr("cpn.data.transforms.statistics", statistics.__wrapped__)  # which keeps them
    with FakeTensorMode(), Ones():  # type: ignore[no-untyped-call]
        job = full_size(name, False, CPU)
        convolutions = [m for m in job.network.modules() if isinstance(m, nn.Conv2d)]
        for module in convolutions:
            module.register_forward_hook(lambda _, __, out: kinds.update([out.dtype]))
        time_steps(job, CPU, 1, warm_up=0, bf16=True)
    assert set(kinds) == {torch.bfloat16} and kinds[torch.bfloat16] >= len(convolutions)
    trained = [parameter for parameter in job.network.parameters() if parameter.requires_grad]
    assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.dtype == torch.float32 for p in trained)


def test_what_reads_an_image_at_full_size_stays_on_the_card() -> None:
    settings, classes = config_from({"preset": "official"}, "test"), len(VOC_CLASSES) + 1
    image, present = torch.zeros(375, 500, 3, dtype=torch.uint8).numpy(), torch.tensor([1, 15])
    with Card(numbers=False) as card:
        with CARD:
            network = build_network(settings.network, classes).eval()
            walker = AffinityNet(build_backbone(settings.network.backbone), settings.affinity.widths).eval()
            deeplab = DeepLab(build_backbone(settings.network.backbone), classes, settings.deeplab).eval()
        card.waits.clear()
        raw = scale_maps(network, image, (188, 250), settings.cam)
        maps = normalised_total(sums_at([raw], present, (375, 500)))
        logits = predict_logits(deeplab, image, settings.deeplab)
        assert card.waits["fetch"] == 0
        affinities = walker.image_affinities(image, settings.affinity.radius)
        assert card.waits["fetch"] == 1 and card.waits["item"] == 0
    assert maps.device == CARD and maps.shape == (2, 375, 500)
    assert logits.device == CARD and logits.shape == (classes, 375, 500)
    assert affinities.shape[0] == 34  # offsets of radius 5
