"""What is timed for a table is one thread's work."""

from platform.sweeps.table_readings import one_thread

import pytest
import torch

from cpn.core.opencv import cv2


def test_one_thread_while_timing_and_as_many_as_before_after_it() -> None:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(2)
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread():
            assert (cv2.getNumThreads(), torch.get_num_threads()) == (1, 1)
            raise KeyError
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (2, 2)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
