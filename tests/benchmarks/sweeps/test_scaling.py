"""The formula of the estimate by hand, what is counted of a network, and what is read off the trials' lines."""

import argparse
import math
from typing import Any

import pytest
import torch

from benchmarks.sweeps import scaling
from benchmarks.sweeps.command_tree import Line
from cpn.config import config_from
from cpn.core.errors import InputError

SCENES = {"preset": ["official", "scenes"], "network": {"weights": None}}


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{"estimate": True, "tflops": 30.0, "no_overlap": False, "write": None, "quick": True, **given}
    )


def test_the_ring_sends_everything_twice_but_for_the_own_share() -> None:
    # 4 GPUs, 8 bytes, 2 bytes a second: 2 x 3/4 x 8 / 2 = 6 s, and 2 x 3 rounds of one bucket, 0.5 s each.
    assert scaling.ring_seconds(4, 8.0, 2.0, 0.5) == 9.0
    assert scaling.ring_seconds(1, 8.0, 2.0, 0.5) == 0.0
    assert [scaling.buckets(size) for size in (1, 25 * 2**20, 25 * 2**20 + 1, 100 * 2**20)] == [1, 1, 2, 4]


def test_all_messages_but_the_last_hide_behind_the_backward() -> None:
    assert scaling.efficiency(1.0, 0.5, 5, 0.0) == pytest.approx(1 / 1.5)  # nothing hidden
    assert scaling.efficiency(1.0, 0.5, 5, 0.6) == pytest.approx(1 / 1.1)  # all but a fifth of 0.5
    assert scaling.efficiency(1.0, 1.0, 10, 0.6) == pytest.approx(1 / 1.4)  # 0.4 does not fit behind it


def test_frozen_layers_are_in_no_message() -> None:
    whole = scaling.messages(config_from(SCENES, "-"), 7)
    plain = scaling.messages(config_from({**SCENES, "train": {"objective": "classification"}}, "-"), 7)
    # A classification loss never reaches PCM's layers, which then are frozen; nothing is lost.
    assert plain["gradient_bytes"] < whole["gradient_bytes"]
    assert sum(plain[k] for k in ("gradient_bytes", "frozen_bytes")) == sum(
        whole[k] for k in ("gradient_bytes", "frozen_bytes")
    )
    # f8_3 and f8_4 (16 and 32 channels) and f9 (3 + 16 + 32 channels to 48) have no biases, float32.
    from cpn.models.network import build_network

    network = build_network(config_from(SCENES, "-").network, 7)
    layers = (network.f8_3, network.f8_4, network.f9)
    assert whole["gradient_bytes"] - plain["gradient_bytes"] == 4 * sum(
        layer.weight.numel() for layer in layers  # f10 is PRCM's, which scenes leave out
    )  # fmt: skip


def test_seconds_an_image_leave_the_first_epoch_out() -> None:
    def reported(uid: int, rate: float) -> Line:
        return Line(0.0, 0.0, {"event": "trial_reported", "uid": uid, "images_per_s": rate})

    lines = [reported(0, 1.0), reported(0, 10.0), reported(0, 20.0), reported(0, 40.0), reported(1, 2.0),
             reported(1, 50.0), Line(0.0, 0.0, {"event": "trial_reported", "uid": 0, "miou": 1.0}),
             reported(2, 3.0), reported(2, 40.0)]  # fmt: skip
    assert scaling.seconds_an_image(lines, [0]) == pytest.approx(1 / 20)
    assert scaling.seconds_an_image(lines, [1]) == pytest.approx(1 / 50)
    assert scaling.seconds_an_image(lines, [0, 2]) == pytest.approx((1 / 20 + 1 / 40) / 2)


def test_networks_are_as_far_apart_as_training_moved_them() -> None:
    start = {"a": torch.zeros(2), "b": torch.zeros(1)}
    one = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    other = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([3.0])}
    assert math.isclose(scaling.apart(one, other, start), 1 / 5)
    assert scaling.apart(one, one, start) == 0.0


def test_two_halves_have_the_gradient_of_the_whole_batch() -> None:
    """What makes two workers' training that of one, and `difference` small."""
    from cpn.data.loader import Batch
    from cpn.models.network import build_network
    from cpn.training.cam_training import objective

    config = config_from({**SCENES, "network": {"weights": None, "dropout": 0.0}}, "-")
    torch.manual_seed(0)
    network = build_network(config.network, 7).train()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 32, 32, 3), generator=generator).to(torch.uint8)
    hidden = torch.rand(4, 32, 32, generator=generator) < 0.5
    labels = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    lam = 1 - hidden.float().mean((1, 2))

    def gradient(part: slice) -> torch.Tensor:
        batch = Batch(
            images[part], torch.ones(4, 32, 32, dtype=torch.bool)[part], hidden[part], lam[part], labels[part]
        )
        network.zero_grad()
        objective(network, batch, 0.9, config.loss, "cpn")["total"].backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    whole = gradient(slice(0, 4))
    halves = (gradient(slice(0, 2)) + gradient(slice(2, 4))) / 2
    assert torch.linalg.norm(whole) > 0
    assert float(torch.linalg.norm(whole - halves) / torch.linalg.norm(whole)) < 1e-4


def test_the_estimate_is_printed_and_is_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    found = scaling.run(options())
    assert "| InfiniBand 200 Gbit/s |" in capsys.readouterr().out
    # ResNet38 has a hundred million parameters, of which the first layers are frozen.
    assert 3.5e8 < found["gradient_bytes"] < 4.5e8 and found["frozen_bytes"] > 0
    fast, slow = (found["efficiency"][name] for name in ("InfiniBand 200 Gbit/s", "Ethernet 10 Gbit/s"))
    assert all(0 < b < a <= 1 for a, b in zip(fast, slow, strict=True)) and sorted(slow, reverse=True) == slow
    hidden = found["efficiency"]
    bare = scaling.run(options(no_overlap=True))["efficiency"]
    assert all(bare[name][-1] < hidden[name][-1] for name in hidden)
    with pytest.raises(InputError, match="--tflops"):
        scaling.run(options(tflops=0.0))


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.unproven
@pytest.mark.timeout(1200)
def test_two_workers_send_what_is_counted() -> None:
    assert scaling.run(options(estimate=False))["equal"] is True
