"""The dense CRF on one image after the other, in other processes while this one makes the next image's scores."""

import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from cpn.config.crf import CrfConfig
from cpn.core.errors import WorkError
from cpn.propagation.crf import refine_label

WORTH_PIXELS = 5_000_000
"""Pixels of a list from which on processes pay: their start takes seconds, the CRF of so many pixels half a minute."""


def refined_labels(
    images_and_scores: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]], config: CrfConfig, processes: int
) -> Generator[NDArray[np.uint8], None, None]:
    """`refine_label` of each image and its scores, in order: (H, W, 3), (C, H, W) -> (H, W); 0 processes: in this one.

    As many images are held as there are processes. Raises WorkError where one of them is killed.
    """
    if processes == 0:
        for image, probabilities in images_and_scores:
            yield refine_label(image, probabilities, config)
        return
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    # Ctrl-C reaches all processes; this one alone answers it.
    with ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            for image, probabilities in images_and_scores:
                if len(waiting) == processes:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(refine_label, image, probabilities, config))
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that runs the CRF was killed, perhaps for its memory: lower data.workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
