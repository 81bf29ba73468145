"""An image's eight passes (four scales, plain and mirrored): mirrored pairs in one forward, against one by one.

    python -m benchmarks cam_inference --json

A scene network at 129 x 97 on the CPU, one thread; on a GPU (`--device cuda`) ResNet38 at 375 x 500, where the target
of 0.6 holds. `ours_mib` is what is held beyond the network, which is one scale's maps at a time: `ours_mib_16` is the
same for an image of sixteen times the area, divided by sixteen. `equal`: the maps, in [0, 1], differ by less than
1e-4. On the CPU `spread_2` is how long two Ray tasks take for the stage cam over a list of scenes, one core and half of
the list each, over what one task takes for all of it, in seconds of the clock: 0.5 is linear, and needs the two
`free_cores` that others on the machine left at the start; not measured on one core.
"""

import argparse
import os
import time
from typing import Any

from benchmarks.comparison import Comparison, take_turns

TOLERANCE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="where to run (%(default)s)")


def one_by_one(network: Any, image: Any, present: Any, scales: Any) -> Any:
    """The same maps with a forward pass for each scale and each side."""
    import numpy as np
    import torch

    from cpn.data.transforms import normalise, resize
    from cpn.scoring.cam import normalise_sum, sum_passes
    from cpn.scoring.shown_sizes import size_at_scale

    passes = []
    device = next(network.parameters()).device
    with torch.no_grad():
        for scale in scales:
            shown = resize(image, size_at_scale(*image.shape[:2], scale))
            for flipped in (False, True):
                pixels = np.ascontiguousarray(shown[:, ::-1] if flipped else shown)
                inputs = normalise(torch.from_numpy(pixels[None]).to(device), None)
                passes.append(network(inputs).refined_cam[0, torch.as_tensor(present)].float())
        summed = sum_passes(passes, [False, True] * len(scales), image.shape[:2])
    return normalise_sum(summed).cpu().numpy()


def spread(images: int, rounds: int) -> float:
    """Seconds of two Ray tasks for the stage cam over so many scenes, over those of one."""
    import tempfile
    from pathlib import Path

    import ray

    from benchmarks.sweeps.growth import inputs, lay_out

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lay_out(folder, (images,))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            makers = [ray.remote(CamMaker).remote() for _ in range(2)]
            stage_inputs = inputs(folder, images)

            def share(count: int) -> None:
                parts = [range(part, images, count) for part in range(count)]
                jobs = zip(makers, parts, strict=False)
                out = Path(tempfile.mkdtemp(dir=folder))
                ray.get([maker.make.remote(stage_inputs, part, out) for maker, part in jobs])

            both, one = take_turns(lambda: share(2), lambda: share(1), rounds, time.perf_counter)
        finally:
            ray.shutdown()
    return both / one


class CamMaker:
    """A worker of one core that makes maps; it stays, so that its start is not measured."""

    def make(self, inputs: Any, indices: Any, out: Any) -> None:
        """The stage cam over a part of the list."""
        import torch

        from cpn.stages.pipeline import make_cams

        torch.set_num_threads(1)
        make_cams(inputs, indices, out)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare."""
    import numpy as np
    import torch

    from benchmarks.method.pcm import most_held
    from cpn.config import config_from
    from cpn.config.cam import CamConfig
    from cpn.models.network import build_network
    from cpn.scoring.cam import multi_scale_maps

    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    free = max(0.0, cores - os.getloadavg()[0])
    device = torch.device(getattr(options, "device", "cpu"))
    on_gpu = device.type == "cuda"
    config = config_from({"preset": ["official"] if on_gpu else ["official", "scenes"]}, "the benchmark")
    torch.manual_seed(0)
    network = build_network(config.network, 21).eval().to(device)
    height, width = (375, 500) if on_gpu else (97, 129)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    cam, present = CamConfig(), np.array([8, 15])
    difference = np.abs(
        multi_scale_maps(network, image, present, cam) - one_by_one(network, image, present, cam.scales)
    )

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    ours, other = take_turns(
        lambda: multi_scale_maps(network, image, present, cam),
        lambda: one_by_one(network, image, present, cam.scales),
        3 if options.quick else 9,
        clock,
    )
    more: dict[str, Any] = {"device": device.type, "largest_difference": float(difference.max())}
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        multi_scale_maps(network, image, present, cam)
        more["ours_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    else:
        more["free_cores"] = free
        more["spread_2"] = spread(*((32, 1) if options.quick else (128, 3))) if cores > 1 else "not measured"
        more["ours_mib"] = most_held(lambda: multi_scale_maps(network, image, present, cam))
        large = np.tile(image, (4, 4, 1))
        more["ours_mib_16"] = most_held(lambda: multi_scale_maps(network, large, present, cam)) / 16
    equal = float(difference.max()) < TOLERANCE
    return Comparison(ours, other, "s an image", equal, 0.6 if on_gpu else None, more).result()
