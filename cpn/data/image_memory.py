"""Out of memory while one image is worked on: one line that names the image, its size and the cure."""

from collections.abc import Iterator
from contextlib import contextmanager

from cpn.core.errors import WorkError, brief_words, is_out_of_memory
from cpn.data.voc import Split

CAM_CURE = (
    "set cam.max_pixels, above which a view is shown smaller, or cam.long_side, or take smaller cam.scales or "
    "cam.flip=false"
)
DEEPLAB_CURE = (
    "set deeplab.max_pixels, above which a view is shown smaller, or take smaller deeplab.scales or "
    "deeplab.test_flip=false"
)
SCALE_DOWN = "scale the image down, with its mask, or leave more memory free"


@contextmanager
def working_on(name: str, height: int, width: int, cure: str) -> Iterator[None]:
    """Turn what memory does not suffice for inside into a WorkError that names the image and `cure`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise WorkError(_words(name, height, width, cure, error)) from None


@contextmanager
def image_of(split: Split, index: int, cure: str) -> Iterator[None]:
    """`working_on` the image at `index` of a list."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise WorkError(_words(split.ids[index], *split.size(index), cure, error)) from None


def _words(name: str, height: int, width: int, cure: str, error: Exception) -> str:
    return f"{name}: out of memory at {width}x{height} pixels; {cure} ({brief_words(error)})"
