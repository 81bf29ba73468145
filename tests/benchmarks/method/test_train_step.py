"""Three passes come to the same losses as one, and gradients are compared by their norm."""

import pytest
import torch

from benchmarks.method.train_step import gradients_apart, three_passes
from cpn.config import config_from
from cpn.cost.step_time import cam_job
from cpn.training.cam_training import objective


def test_gradients_are_compared_by_their_norm() -> None:
    network = torch.nn.Linear(2, 1, bias=False)
    weight = network.weight[0]
    assert gradients_apart(network, 3 * weight[0] + 4 * weight[1], 3 * weight[0] + 4 * weight[1]) == 0
    assert gradients_apart(network, 3 * weight[0], 3 * weight[0] + 4 * weight[1]) == pytest.approx(4 / 5)


def test_three_passes_have_the_losses_and_gradients_of_one() -> None:
    config = config_from({"preset": ["official", "scenes"], "train": {"batch_size": 2}}, "the test")
    torch.manual_seed(0)
    job = cam_job(config, 7, torch.device("cpu"))
    network = job.network.eval()
    one, three = objective(network, job.batch, 0.5, config.loss, "cpn"), three_passes(network, job.batch, config)
    assert set(one) == set(three)
    for name, value in three.items():
        torch.testing.assert_close(one[name], value, rtol=1e-5, atol=1e-6)
    assert gradients_apart(network, one["total"], three["total"]) < 1e-4
    again = objective(network, job.batch, 0.5, config.loss, "cpn")
    assert gradients_apart(network, again["cls"], three_passes(network, job.batch, config)["total"]) > 1e-2
