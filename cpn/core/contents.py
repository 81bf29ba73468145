"""What a configuration names outside itself, known by its content: weights files, and a user's own backbone.

A key holds the digest of a weights file instead of its path, and beside `package.module:factory` the digest of that
module's source and of the user's own modules that it imports, whatever folder either lies in. What is found by reading
the sources alone: imports that are computed at run time are not seen, nor are data files that the code opens.
"""

import ast
import functools
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError
from cpn.core.files import digest, file_digest
from cpn.core.plain_file import MB, read_plain

TIMM = "timm:"
"""Begins the name of a backbone that the package timm makes; it is no code of the user's."""
NAMED_WEIGHTS = ("scenes", "imagenet")
"""Values of `network.weights` that are no path: the pretrained proxy, and the published weights of the backbone."""
MARK = "sha256:"
"""Begins a digest where a key would otherwise have a path."""
OURS = ("cpn", "platform")
"""Our own packages: `METHOD_VERSION` stands for what they do."""
LARGEST_SOURCE = 10 * MB
INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed packages, whose versions the records of a run name."""


@dataclass(frozen=True)
class OwnModule:
    """A module of the user's: its dotted name, its file, and the folder of the import path that it was found in."""

    name: str
    file: Path
    root: Path


def by_content(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a configuration, dotted or of one section, as they stand in keys.

    `weights` that name a file become the digest of its bytes, and a `backbone` that names a user's code gets an entry
    `backbone_code` beside it. A missing file or module keeps its name here; reading or importing it raises the error.
    """
    keyed: dict[str, Any] = {}
    for name, value in values.items():
        content = _content(name, value)
        keyed[name] = value if content is None or is_code(value) else content
        if content is not None and is_code(value):
            keyed[f"{name}_code"] = content
    return keyed


def contents(values: Mapping[str, Any]) -> dict[str, str]:
    """Return digests of the existing files and modules that `values` name: path or `module:factory` -> digest."""
    named = ((value, _content(name, value)) for name, value in values.items())
    return {value: content for value, content in named if content is not None}


def is_code(backbone: object) -> bool:
    """Return whether a backbone is named as `package.module:factory`."""
    return isinstance(backbone, str) and ":" in backbone and "/" not in backbone and not backbone.startswith(TIMM)


def _content(name: str, value: object) -> str | None:
    """Return the digest of what one value names; None where it names neither a file nor code that is there."""
    kind = name.rpartition(".")[2]
    if kind == "weights" and isinstance(value, str) and value not in NAMED_WEIGHTS and os.path.isfile(value):
        return MARK + _bytes_digest(value, *_stamp(Path(value)))[:16]
    modules = own_modules(str(value)) if kind == "backbone" and is_code(value) else ()
    sources = sorted((module.name, _bytes_digest(str(module.file), *_stamp(module.file))) for module in modules)
    return MARK + digest(sources) if sources else None


def own_modules(target: str) -> tuple[OwnModule, ...]:
    """Return the module of `package.module:factory`, the packages around it, and the user's own modules that these
    import.

    Not among them: Python's own modules, installed packages (but for the named module itself) and this product's.
    Nothing is imported or run. Empty where there is no such module.
    """
    modules = reached_modules(target)
    return modules if any(module.name == target.partition(":")[0] for module in modules) else ()


def reached_modules(target: str) -> tuple[OwnModule, ...]:
    """`own_modules`, but where there is no such module the packages around it: Python runs them before it fails."""
    request = (target.partition(":")[0], tuple(sys.path))
    modules = _walked.get(request, ())
    if not modules or any(not module.file.exists() or _stamp(module.file) != stamp for module, stamp in modules):
        modules = _walked[request] = tuple((module, _stamp(module.file)) for module in _walk(request[0]))
    return tuple(module for module, _ in modules)


_walked: dict[tuple[str, tuple[str, ...]], tuple[tuple[OwnModule, tuple[int, int, int]], ...]] = {}
"""What was found for a module under an import path; it holds while none of the files has changed."""


def _walk(named: str) -> list[OwnModule]:
    modules: dict[str, OwnModule] = {}
    known: dict[str, ModuleSpec | None] = {}
    waiting = [named]
    while waiting:
        parts = waiting.pop().split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            if name not in known:
                known[name] = _find(name, known)
                module = _module(name, known)
                if module is not None and (_is_own(module) or f"{named}.".startswith(f"{name}.")):
                    if not module.file.is_file():
                        raise InputError(f"module {name}: {module.file} lies in no folder; unpack the archive")
                    modules[name] = module
                    waiting += _imports(module) if _is_own(module) else []
                elif module is not None:
                    known[name] = None  # what lies in somebody else's package is theirs
            if known[name] is None:
                break
    return list(modules.values())


def _find(name: str, known: Mapping[str, ModuleSpec | None]) -> ModuleSpec | None:
    """Return where a module lies; its package is in `known`."""
    above = name.rpartition(".")[0]
    if above:
        package = known[above]
        places = package.submodule_search_locations if package is not None else None
        return PathFinder.find_spec(name, list(places)) if places is not None else None
    try:
        return importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):  # a module such as __main__ that has no spec
        return None


def _module(name: str, known: Mapping[str, ModuleSpec | None]) -> OwnModule | None:
    """Return the file of a module; None for one that has none, as a folder without __init__.py or one that is
    built in.
    """
    spec = known[name]
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    file = Path(spec.origin).absolute()
    depth = name.count(".") + (2 if file.stem == "__init__" else 1)
    return OwnModule(name, file, file.parents[depth - 1])


def _is_own(module: OwnModule) -> bool:
    top = module.name.partition(".")[0]
    return top not in OURS and top not in sys.stdlib_module_names and not INSTALLED & set(module.file.parts)


def _imports(module: OwnModule) -> list[str]:
    """Return the dotted names that a module imports anywhere in it; `from a import b` is a.b too, for b may be a
    module.
    """
    if module.file.suffix != ".py":
        return []
    return list(_imports_of(module.name, str(module.file), *_stamp(module.file)))


@functools.lru_cache(maxsize=1024)
def _imports_of(name: str, file: str, *_stamp: int) -> tuple[str, ...]:
    try:
        tree = ast.parse(read_plain(Path(file), LARGEST_SOURCE))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # importing it raises the same error, with its place
        return ()
    above = name.split(".") if Path(file).stem == "__init__" else name.split(".")[:-1]
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            imported += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(name for name in imported if name and not name.startswith("."))


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does: size, time, inode."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@functools.lru_cache(maxsize=1024)
def _bytes_digest(path: str, *_stamp: int) -> str:
    """SHA-256 of a file, read once while it stays as it is."""
    return file_digest(Path(path))
