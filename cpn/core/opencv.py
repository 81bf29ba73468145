"""OpenCV as `from cpn.core.opencv import cv2`: where a system library is missing, one line names its package."""

from cpn.core.errors import InputError

PACKAGES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0", "libxcb.so.1": "libxcb1"}
"""Shared library that the wheel of opencv-python expects from the system -> its Debian and Ubuntu package."""


def missing_library(reason: str) -> str | None:
    """Return the one-line cure for the loader's message `reason`, or None when `reason` names no shared library."""
    library = reason.split(":", 1)[0].strip()
    if ".so" not in library:
        return None
    package = PACKAGES.get(library)
    cure = f"apt-get install {package}" if package else f"the package that holds {library}"
    return f"import cv2: the system library {library} is missing; on Debian or Ubuntu: {cure}"


try:
    import cv2
except ImportError as error:
    if (message := missing_library(str(error))) is None:
        raise
    raise InputError(message) from error

__all__ = ["cv2"]
