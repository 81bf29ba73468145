"""The C library is told to keep freed memory while a network trains on a CPU, and to give it back afterwards."""

import ctypes

import pytest
import torch

from cpn.training.kept_memory import HEAP_BYTES, KEPT_BYTES, USUAL_BYTES, kept_memory

KEPT = [(-3, HEAP_BYTES), (-1, KEPT_BYTES)]
USUAL = [(-3, USUAL_BYTES), (-1, USUAL_BYTES), "trim"]


class Library:
    """A C library that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int] | str] = []

    def mallopt(self, number: int, value: int) -> int:
        self.told.append((number, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.told.append("trim")
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made)
    return made


def test_memory_is_kept_on_a_cpu_and_goes_back(library: Library) -> None:
    with pytest.raises(KeyError), kept_memory(torch.device("cpu")):
        assert library.told == KEPT
        raise KeyError
    assert library.told == KEPT + USUAL


def test_another_device_is_left_alone(library: Library) -> None:
    with kept_memory(torch.device("meta")):
        pass
    assert not library.told


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory(torch.device("cpu")):
        pass


def test_this_c_library_takes_the_values() -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        pytest.skip("another C library than glibc")
    for number, value in [*KEPT, *[pair for pair in USUAL if isinstance(pair, tuple)]]:
        assert library.mallopt(number, value) == 1
