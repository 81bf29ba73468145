"""The standard library's `platform`, whole, as a package: our submodules stand beside its functions."""

import importlib.machinery as _machinery
import os as _os

_spec = _machinery.PathFinder.find_spec("platform", [_os.path.dirname(_os.__file__)])
exec(_spec.loader.get_code("platform"), globals())  # type: ignore[union-attr]
