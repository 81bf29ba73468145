"""The scripts of docs/development, which are in no package, as modules."""

import importlib.util
from types import ModuleType

from tests.conftest import CHECKOUT


def development_script(name: str) -> ModuleType:
    """Import docs/development/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "docs" / "development" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
