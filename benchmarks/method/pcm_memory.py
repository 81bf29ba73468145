"""What PCM holds: streamed in blocks that are computed again, against the whole affinity matrix and its gradients.

    python -m benchmarks pcm_memory --json

Batch 4 at 56 x 56 cells (crops of 448 at stride 8), forward and backward, each side in a process of its own: MiB of
resident memory beyond what it held before, after a small warm-up. `ratio_scale_2` is the forward pass alone at 125 x 94
cells, an image of 500 x 375 at scale 2.0. `equal`: in float32 no gradient differs by more than 1e-6 (they reach
`largest_gradient`), nor the refined map at scale 2.0 by more than 1e-5 (`difference_scale_2`; maps lie in [0, 1]);
`relative` is the norm of the gradients' difference by that of the gradient.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.comparison import Comparison

TRAINED, SCALE_2 = (4, 56, 56), (1, 125, 94)


def side(name: str) -> Any:
    """`ours` or `naive`."""
    from benchmarks.method.pcm import naive
    from cpn.models.correlation import pcm

    return {"ours": pcm, "naive": naive}[name]


def held(name: str, shape: tuple[int, int, int], backward: bool) -> float:
    """MiB held at most, measured in a new process."""
    words = [sys.executable, "-m", "benchmarks.method.pcm_memory", json.dumps([name, shape, backward])]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def measure(name: str, shape: tuple[int, int, int], backward: bool) -> float:
    """The same in this process."""
    import torch

    from benchmarks.method.pcm import gradient, inputs, most_held

    torch.set_num_threads(1)
    work = side(name)
    gradient(work, *inputs(1, 24, 24))
    cam, features = inputs(*shape)
    if backward:
        return most_held(lambda: gradient(work, cam, features))
    with torch.no_grad():
        return most_held(lambda: work(cam, features))


def compared() -> dict[str, float]:
    """How far ours' float32 gradients are from naive's, batch 4 at 56 x 56."""
    from benchmarks.method.pcm import gradient, inputs

    cam, features = inputs(*TRAINED)
    ours, other = (gradient(side(name), cam, features) for name in ("ours", "naive"))
    return {
        "largest_difference": float((ours - other).abs().max()),
        "largest_gradient": float(other.abs().max()),
        "relative": float((ours - other).norm() / other.norm()),
    }


def map_difference(shape: tuple[int, int, int]) -> float:
    """The largest difference of ours' refined map from naive's."""
    import torch

    from benchmarks.method.pcm import inputs

    cam, features = inputs(*shape)
    with torch.no_grad():
        return float((side("ours")(cam, features) - side("naive")(cam, features)).abs().max())


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare at both sizes."""
    import torch

    torch.set_num_threads(1)
    more = compared()
    ours, other = (held(name, TRAINED, True) for name in ("ours", "naive"))
    small, large = (held(name, SCALE_2, False) for name in ("ours", "naive"))
    apart = map_difference(SCALE_2)
    more |= {"ratio_scale_2": small / large, "target_scale_2": 0.08, "difference_scale_2": apart}
    more |= {"ours_scale_2": small, "other_scale_2": large}
    equal = more["largest_difference"] < 1e-6 and apart < 1e-5
    return Comparison(ours, other, "MiB", equal, 0.15, more).result()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(measure(given[0], tuple(given[1]), given[2]))
