"""What fits where: workers on nodes, trials at a time, a training step in memory."""

from platform.cluster.capacity import LOGICAL_GPUS, check_memory, check_resources, concurrency, room, usable
from platform.config.sections import Resources

import pytest
import torch

from cpn.config import config_from
from cpn.core.errors import InputError, WorkError

SCENES = config_from({"preset": ["official", "scenes"]}, "test")


def test_a_gpu_that_is_not_there_is_refused_with_the_cure() -> None:
    with pytest.raises(InputError) as refusal:
        check_resources(Resources(workers=2, gpus_per_worker=1), [{"CPU": 4.0}])
    assert str(refusal.value) == (
        "resources.gpus_per_worker: a trial needs 2 GPUs (2 workers), the cluster has 0; "
        "--set resources.gpus_per_worker=0 trains on the CPU, or resources.autoscaled=true if more come on demand"
    )
    with pytest.raises(InputError, match="a trial needs 1 GPUs"):
        check_resources(Resources(), [{"CPU": 8.0}])


def test_more_cpus_than_the_cluster_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"resources.cpus_per_worker: a trial needs 3 CPUs \(3 workers\)"):
        check_resources(Resources(workers=3, gpus_per_worker=0.0), [{"CPU": 2.0}])
    with pytest.raises(InputError, match=r"resources.cpus_per_worker: a trial needs 8 CPUs .* has 4; lower it"):
        check_resources(Resources(workers=2, gpus_per_worker=0, cpus_per_worker=4), [{"CPU": 4.0}])


def test_what_fits_is_accepted() -> None:
    check_resources(Resources(workers=2, gpus_per_worker=0.0), [{"CPU": 2.0}])
    check_resources(Resources(workers=2, gpus_per_worker=0.5), [{"CPU": 2.0, "GPU": 1.0}])
    check_resources(Resources(workers=2, gpus_per_worker=1, cpus_per_worker=2), [{"CPU": 4.0, "GPU": 2.0}])


@pytest.mark.parametrize(
    ("resources", "have", "expected"),
    [
        (Resources(gpus_per_worker=0.0), {"CPU": 2.0}, 2),
        (Resources(gpus_per_worker=0.0, workers=2), {"CPU": 5.0}, 2),
        (Resources(), {"CPU": 64.0, "GPU": 3.0}, 3),
        (Resources(gpus_per_worker=0.25), {"CPU": 2.0, "GPU": 1.0}, 2),
        (Resources(gpus_per_worker=0.25), {"CPU": 64.0, "GPU": 2.0}, 8),
        (Resources(gpus_per_worker=0.6), {"CPU": 64.0, "GPU": 3.0}, 3),
        (Resources(concurrent=7), {"CPU": 2.0, "GPU": 1.0}, 7),
    ],
)
def test_as_many_trials_at_a_time_as_fit(resources: Resources, have: dict[str, float], expected: int) -> None:
    assert concurrency(resources, [have]) == expected


SMALL, LARGE = {"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 4.0}


def test_a_worker_has_to_fit_on_one_node() -> None:
    check_resources(Resources(workers=2, cpus_per_worker=4), [SMALL, SMALL])
    with pytest.raises(InputError, match=r"each of 2 needs 3 CPUs and 0 GPUs of one machine, and the 3 .* room for 0"):
        check_resources(Resources(workers=2, gpus_per_worker=0.0, cpus_per_worker=3), 3 * [{"CPU": 2.0}])


def test_trials_at_a_time_are_counted_node_by_node() -> None:
    assert concurrency(Resources(gpus_per_worker=0.0, cpus_per_worker=3), [SMALL, LARGE]) == 3
    assert concurrency(Resources(workers=2), [SMALL, LARGE]) == 2
    assert concurrency(Resources(), [{"CPU": 32.0}, LARGE, SMALL]) == 5


def test_only_the_wanted_cards_count() -> None:
    nodes = [LARGE | {"accelerator_type:A100": 1.0}, LARGE | {"accelerator_type:T4": 1.0}, {"CPU": 64.0}]
    assert [room(Resources(accelerator="A100"), node) for node in nodes] == [4, 0, 0]
    assert concurrency(Resources(accelerator="A100", workers=2), nodes) == 2
    with pytest.raises(InputError, match=r"GPUs of a H100 of one machine, .* room for 0; .* drop resources.acc"):
        check_resources(Resources(accelerator="H100"), nodes)


def test_an_autoscaled_cluster_may_be_empty() -> None:
    check_resources(Resources(autoscaled=True, concurrent=8), [{"memory": 1.0}])


def test_a_step_that_cannot_fit_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import psutil

    def free(size: float) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=size))

    free(2**30)
    check_memory(SCENES, 7, 1, torch.device("cpu"), 1.0)
    free(2**24)
    with pytest.raises(WorkError, match=r"memory: a training step holds at least 0.1 GiB, .* machine has 0.0 GiB"):
        check_memory(SCENES, 7, 1, torch.device("cpu"), 1.0)


def test_a_share_of_a_card_is_a_share_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: held.append(share))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    check_memory(SCENES, 7, 1, torch.device("cuda"), 0.5)
    check_memory(SCENES, 7, 1, torch.device("cuda"), 1.0)
    assert held == [0.5]
    with pytest.raises(WorkError, match=r"and a card has 0.0 GiB free for this worker"):
        check_memory(SCENES, 7, 1, torch.device("cuda"), 0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a card")
def test_a_card_torch_lacks_is_an_error_unless_logical(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOGICAL_GPUS, raising=False)
    assert usable(torch.device("cpu")).type == "cpu"
    with pytest.raises(WorkError, match=r"resources.gpus_per_worker: Ray gave .* finds none .*; install a CUDA"):
        usable(torch.device("cuda:0"))
    monkeypatch.setenv(LOGICAL_GPUS, "1")
    assert usable(torch.device("cuda:0")).type == "cpu"
