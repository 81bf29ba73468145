"""Reading and writing YAML: safe, strict about what a typo hides, and one line per error with file, line and cure.

The scalars are those of YAML 1.2: `1e-3` is a number, `yes`, `no`, `on`, `off` are words, `010` is ten, and a date is
text. Anchors serve, as long as what they stand for stays small written out: a few lines of them can mean gigabytes.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from cpn.core.checked import SWEEP_WRITES
from cpn.core.errors import InputError
from cpn.core.files import DamagedFile, digest, write_bytes
from cpn.core.plain_file import MB, folder_there, read_plain

_SCALARS = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
)


SEAL = "# digest: "
"""First line of a YAML file that the product wrote itself, before the digest of the lines below."""
SECTIONS = ("base", "search", "budget", "resources", "confirm", "promote", "tracking")
"""Parts of a specification that hold keys of their own."""
MAX_LEVELS = 30
"""How deep lists and mappings may lie in each other."""
MAX_VALUES = 10_000
"""How many values a file may hold with its anchors written out."""
MAX_BYTES = MB
"""How large a file may be."""


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2 scalars and no other tags. Errors: repeated keys, numbers that are not finite or
    have more than 64 bits, characters that no file name or text can hold, and what is deeper or larger than above.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = self.nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.level, self.nodes = self.level + 1, self.nodes + 1
        if self.nodes > 2 * MAX_VALUES:  # each value has a key at most; more is refused before it is read to its end
            raise yaml.constructor.ConstructorError(None, None, _TOO_MANY, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        if self.level > MAX_LEVELS:
            raise yaml.constructor.ConstructorError(None, None, _TOO_DEEP, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        if not isinstance(node, yaml.MappingNode):
            raise _problem(node, "this is no mapping; write `name: value`")
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _problem(key_node, "a key has to be a plain word; write `name: value`")
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in seen:
                raise _problem(key_node, f"key '{key}' stands twice (first on line {seen[key]}); keep one of them")
            seen[key] = line
        values = super().construct_mapping(node, deep=True)
        for key_node, _ in node.value:
            if not isinstance(self.construct_object(key_node), str):
                raise _problem(
                    key_node, f"the key {_brief(key_node.value)} is read as no text; write a name, in quotes"
                )
        return values

    def construct_truth(self, node: yaml.ScalarNode) -> bool:
        text = self.construct_scalar(node).lower()
        if text not in ("true", "false"):
            raise _problem(node, f"{_brief(node.value)} is no bool; write true or false")
        return bool(text == "true")

    def construct_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        if not re.fullmatch("[-+]?[0-9]+", text, re.ASCII):
            raise _problem(node, f"{_brief(text)} is no int; write digits")
        if len(text.lstrip("-+0")) > 19 or not -(2**63) <= int(text) < 2**63:
            raise _problem(node, f"{_brief(text)} is too large; a whole number has at most 64 bits")
        return int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        text = self.construct_scalar(node).lower()
        try:
            value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise _problem(node, f"{_brief(node.value)} is no float; write a number") from None
        if not math.isfinite(value):
            raise _problem(node, f"{node.value} is not a finite number; write a number, or null for off")
        return value

    def construct_text(self, node: yaml.ScalarNode) -> str:
        text: str = self.construct_scalar(node)
        odd = next((c for c in text if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if odd is not None:
            raise _problem(node, f"character {odd!a} is no text; write it without")
        return text


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back unchanged."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)
_Loader.yaml_constructors = {
    "tag:yaml.org,2002:null": _Loader.construct_yaml_null,
    "tag:yaml.org,2002:bool": _Loader.construct_truth,
    "tag:yaml.org,2002:int": _Loader.construct_int,
    "tag:yaml.org,2002:float": _Loader.construct_float,
    "tag:yaml.org,2002:str": _Loader.construct_text,
    "tag:yaml.org,2002:seq": _Loader.construct_yaml_seq,
    "tag:yaml.org,2002:map": _Loader.construct_yaml_map,
    None: _Loader.construct_undefined,
}

_TOO_MANY = f"this file holds more than {MAX_VALUES} values; give the right file"
_TOO_DEEP = f"lists and mappings are nested more than {MAX_LEVELS} levels deep; write it flat"


def _problem(node: yaml.Node, text: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises InputError, one line with file, line and cure: no such file, not readable, not UTF-8, empty, not a mapping,
    a syntax error, a tab, a key given twice, a number that is not finite.
    """
    if folder_there(path):
        raise InputError(f"{path}: is a folder; name a YAML file in it")
    try:
        text = read_plain(path, MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    first, _, rest = text.partition("\n")
    if first.startswith(SEAL) and first != f"{SEAL}{digest(rest)}":
        raise DamagedFile(path, f"{SWEEP_WRITES}; or delete its first line, if you changed it yourself")
    value = _parse(text, str(path))
    if value is None:
        raise InputError(f"{path}: is empty; write at least one `key: value`")
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {_kind(value)}, not a mapping; write `key: value` lines")
    return value


def parse_scalar(text: str, source: str) -> Any:
    """Read the value of `--set name=value`: a YAML scalar or list (`0.5`, `null`, `grid`, `[56, 112]`). `source` opens
    errors.
    """
    return _parse(text, source, with_line=False)


def yaml_text(value: dict[str, Any]) -> str:
    """`value` as YAML text in its own order; short lists stay on one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )
    return text


def dump_yaml(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path` as YAML under a line with its digest, whole or absent; `load_yaml` gives it back
    unchanged.
    """
    text = yaml_text(value)
    write_bytes(path, f"{SEAL}{digest(text)}\n{text}".encode())


def load_kept(path: Path) -> dict[str, Any]:
    """Read what `dump_yaml` wrote at a sweep's start. Raises DamagedFile where it is not that; an earlier version wrote
    no digest.
    """
    try:
        content = load_yaml(path)
        if not isinstance(content.get("name"), str) or any(
            not isinstance(content.get(part, {}), dict) for part in SECTIONS
        ):
            raise DamagedFile(path, SWEEP_WRITES, "it holds no specification")
        return content
    except DamagedFile:
        raise
    except InputError as error:
        raise DamagedFile(path, SWEEP_WRITES, str(error).removeprefix(f"{path}: ").partition(";")[0]) from None


def opening_question(path: Path) -> str | None:
    """Return what the comment at the head of a YAML file asks: the words behind `Question:`, up to the next `Word:`
    line.

    Without `Question:` it is the comment's first paragraph; None without a comment.
    """
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if line.startswith(SEAL):
            continue
        words = line.lstrip("#").strip()
        if lines and (not words or re.match(r"[A-Z]\w*:", words)):
            break
        if words:
            lines.append(words)
    return " ".join(lines).removeprefix("Question:").strip() or None


def _parse(text: str, source: str, with_line: bool = True) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, set())
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark is not None and with_line else source
        lines = text.splitlines()
        line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
        if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(error.problem):
            raise InputError(f"{where}: a tab stands in this line; YAML wants spaces") from None
        if isinstance(error, yaml.constructor.ConstructorError) and error.context is None:
            cure = "; write plain values" if re.search("the tag|expected a", str(error.problem)) else ""
            raise InputError(f"{where}: {_one_line(error.problem)}{cure}") from None
        problem = _one_line(", ".join(part for part in (error.context, error.problem) if part))
        raise InputError(
            f"{where}: not valid YAML ({problem}); check indentation, colons, quotes and brackets"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not valid YAML ({_one_line(str(error))}); save it as plain text") from None


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return the values and levels of what `node` stands for, anchors written out; an error for too many, or an endless
    one.
    """
    if id(node) in measured:
        return measured[id(node)]
    if id(node) in above:
        raise _problem(node, "this anchor holds itself; write out what is meant")
    values, levels = 1, 0
    children = () if isinstance(node, yaml.ScalarNode) else node.value
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            more, deep = _measure(part, measured, above | {id(node)})
            values, levels = values + more, max(levels, deep)
    if values > MAX_VALUES:
        raise _problem(node, f"this holds more than {MAX_VALUES} values; anchors multiply, write them out")
    if levels >= MAX_LEVELS:
        raise _problem(node, _TOO_DEEP)
    measured[id(node)] = values, levels + 1
    return measured[id(node)]


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "true/false", int: "number", float: "number"}.get(type(value), "value")
