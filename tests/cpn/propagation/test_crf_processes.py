"""The CRF in processes gives the labels of one, in order, and ends with them."""

import multiprocessing
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from cpn.config.crf import CrfConfig
from cpn.core.errors import WorkError
from cpn.propagation.crf_processes import refined_labels
from tests.cpn.propagation.test_crf import scene

CONFIG = CrfConfig(iterations=2, sxy_bilateral=4)


def given(number: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    for size in range(number):
        yield scene(14 + size, 17)


def test_labels_come_in_order_from_any_number_of_processes() -> None:
    here = list(refined_labels(given(5), CONFIG, 0))
    there = list(refined_labels(given(5), CONFIG, 2))
    assert [label.shape for label in there] == [(14 + size, 17) for size in range(5)]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)
    assert multiprocessing.active_children() == []


def test_a_killed_process_is_one_line() -> None:
    def shown() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        yield scene()
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        yield from given(3)

    with pytest.raises(WorkError, match="was killed, perhaps for its memory: lower data.workers"):
        list(refined_labels(shown(), CONFIG, 1))


def test_an_error_of_the_network_ends_the_processes() -> None:
    def shown() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        yield scene()
        raise WorkError("of the network")

    with pytest.raises(WorkError, match="of the network"):
        list(refined_labels(shown(), CONFIG, 1))
    assert multiprocessing.active_children() == []
