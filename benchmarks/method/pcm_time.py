"""How long PCM takes, forward and backward at batch 4 and 56 x 56 cells: streamed, against the whole affinity matrix.

    python -m benchmarks pcm_time --json

One thread, CPU seconds. `ratio_batch_1` is the same for one image. `equal`: as in topic pcm_memory.
"""

import argparse
from typing import Any

from benchmarks.comparison import Comparison, take_turns


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare."""
    import torch

    from benchmarks.method.pcm import gradient, inputs
    from benchmarks.method.pcm_memory import TRAINED, compared, side

    torch.set_num_threads(1)
    more = compared()

    def timed(shape: tuple[int, int, int]) -> tuple[float, float]:
        cam, features = inputs(*shape)
        return take_turns(
            lambda: gradient(side("ours"), cam, features),
            lambda: gradient(side("naive"), cam, features),
            3 if options.quick else 7,
        )

    one = timed((1, *TRAINED[1:]))
    ours, other = timed(TRAINED)
    more |= {"ratio_batch_1": one[0] / one[1]}
    return Comparison(ours, other, "CPU s a step", more["largest_difference"] < 1e-6, 0.7, more).result()
