"""Nothing that is read may run code, nothing listens to strangers, and no secret is written down."""

import ast
import os
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from platform import sweep, ui
from platform.base import notify
from platform.base.yaml_files import yaml_text
from platform.run import sweep_context, trial_loop
from platform.search.study import State, Study
from platform.tracking.client import SETTINGS
from typing import Any

import pytest

from cpn.core.errors import run_command
from tests.bad_input.case import SPEC
from tests.cpn.small_voc import write_small_voc
from tests.test_imports import NOWHERE, imported, within

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = ("cpn", "platform", "benchmarks", "deploy", "docs")
FILES = [path.relative_to(CHECKOUT) for name in FOLDERS for path in sorted((CHECKOUT / name).rglob("*.py"))]

NEVER_IMPORTED = NOWHERE | {"_pickle", "cPickle", "_compat_pickle", "pickletools", "http.server", "xmlrpc", "telnetlib"}
NEVER_CALLED = {
    "eval", "exec", "__import__", "import_module", "os.system", "os.popen", "os.execl", "os.execlp", "os.execv",
    "os.execvp", "tempfile.mktemp", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "extractall",
    "torch.save", "torch.jit.load", "torch.package.PackageImporter", "shutil.unpack_archive",
    "read_pickle", "to_pickle", "_create_unverified_context", "load_model_from_pickle", "register_unsafe",
}  # fmt: skip
"""By the whole dotted name, or by its last part."""
ASKED_FOR = {
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}
"""What a call has to say, for its default has not always been safe."""
NEVER_SAID = {("shell", True), ("verify", False), ("allow_pickle", True), ("weights_only", False)}
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that listen to strangers."""
EXCEPTIONS = {
    ("benchmarks/photos/addon.py", "calls exec"),  # the example of docs/python.md, as a reader would
    ("platform/__init__.py", "calls exec"),  # the standard library's own module of that name
    (
        "cpn/models/backbone.py",
        "calls importlib.import_module",
    ),  # a user's own backbone, by the name that the user gives
    ("cpn/__init__.py", "calls importlib.import_module"),  # a public name out of its table
    ("benchmarks/__main__.py", "calls importlib.import_module"),  # a topic out of its table
    ("benchmarks/chaos/damage.py", "calls importlib.import_module"),  # a command out of its table
}


def dotted(node: ast.expr) -> str:
    """`os.path.join` for that expression, as far as it is one."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value) or '?'}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def whole_names(tree: ast.AST) -> dict[str, str]:
    """What imported names stand for: `load` for `torch.load`, `t` for `torch`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return found


def dangers(source: str, file: Path) -> set[str]:
    """What is dangerous in a file, but for the exceptions above."""
    tree = ast.parse(source)
    whole = whole_names(tree)
    found = {f"imports {n}" for n in imported(source, file) for p in NEVER_IMPORTED if within(n, p)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in EVERYWHERE and isinstance(node.value, str):
            found.add(f"names the address {node.value}")
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = dotted(node.func).partition(".")
        name = f"{whole.get(first, first)}{dot}{rest}"
        last = name.rpartition(".")[2]
        if name.removeprefix("builtins.") in NEVER_CALLED or (last in NEVER_CALLED and last not in ("eval", "exec")):
            found.add(f"calls {name}")
        said = {(k.arg, k.value.value) for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
        found |= {f"says {key}={value}" for key, value in said & NEVER_SAID}
        if name in ASKED_FOR and ASKED_FOR[name] not in said:
            found.add(f"calls {name} without {ASKED_FOR[name][0]}={ASKED_FOR[name][1]}")
    return {text for text in found if (file.as_posix(), text) not in EXCEPTIONS}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_file_does_what_is_dangerous(file: Path) -> None:
    assert dangers((CHECKOUT / file).read_text(encoding="utf-8"), file) == set()


def test_every_exception_is_needed() -> None:
    for place, text in EXCEPTIONS:
        elsewhere = Path("elsewhere", place)
        assert text in dangers((CHECKOUT / place).read_text(encoding="utf-8"), elsewhere), place


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from multiprocessing import reduction\nimport cloudpickle",
        "def f():\n    from joblib import load",
        "import importlib\nimportlib.import_module('dill')",
        "import shelve",
        "import marshal as m",
        "eval('1')",
        "import builtins\nbuiltins.exec('1')",
        "import importlib\nimportlib.import_module(name)",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=safe)",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy\nnumpy.load('x')",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import requests\nrequests.get(url, verify=False)",
        "import os\nos.system('ls')",
        "import tarfile\ntarfile.open('x').extractall()",
        "from torch import load\nload('x')",
        "import torch as t\nt.load('x')",
        "from os import system as run\nrun('ls')",
        "from yaml import load\nload(text)",
        "from shutil import unpack_archive\nunpack_archive('x')",
        "import torch\ntorch.save(network, 'x')",
        "import http.server",
        "HOST = '0.0.0.0'",
        "serve(host='::')",
    ],
)
def test_a_danger_is_seen(source: str) -> None:
    assert dangers(source, Path("cpn/scoring/cam.py")) != set()


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import torch\ntorch.load('x', map_location='cpu', weights_only=True)",
        "network.train()\nimport json\njson.load(file)",
        "import subprocess\nsubprocess.run(['ls'], check=False)",
        "HOST = '127.0.0.1'",
    ],
)
def test_what_is_safe_passes(source: str) -> None:
    assert dangers(source, Path("cpn/scoring/cam.py")) == set()


def test_mlflow_loads_no_pickle_and_listens_here_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SETTINGS["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    (tmp_path / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path)
    became: list[tuple[list[str], Mapping[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, environment: became.append((command, environment)))
    monkeypatch.setattr(ui, "check_port", lambda port, host: None)
    monkeypatch.delenv(ui.PASSWORD, raising=False)
    ui.main([])
    command, environment = became[0]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


SECRET = "pa55-horse-battery"
STUDY = f"postgresql://me:{SECRET}@127.0.0.1:9/studies"
STORE = f"http://me:{SECRET}@127.0.0.1:9"
HOOK = f'"curl --header \\"Authorization: Bearer {SECRET}\\" https://example.org/hook"'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small data set and a sweep without fault; Ray is not started."""

    @contextmanager
    def cluster(*_: Any) -> Iterator[list[Mapping[str, float]]]:
        yield [{"CPU": 2.0}]

    write_small_voc(tmp_path / "data")
    (tmp_path / "s.yaml").write_text(yaml_text(SPEC))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    monkeypatch.setattr(sweep_context, "ray_cluster", cluster)
    return tmp_path


def leaks(place: Path, said: str) -> list[str]:
    """Where the secret stands."""
    files = [path for path in place.rglob("*") if path.is_file()]
    assert files
    return ["output"] * (SECRET in said) + [str(p) for p in files if SECRET.encode() in p.read_bytes()]


def start(capsys: pytest.CaptureFixture[str], *sets: str, dry: bool = False) -> tuple[int | str | None, str]:
    """Exit code and all output of a sweep; a traceback is output too."""
    words = [word for text in ("data.root=data", *sets) for word in ("--set", text)]
    code: int | str | None = None
    text = ""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run_command(lambda: sweep.main(["s.yaml", *words, *["--dry-run"] * dry]))
    except SystemExit as left:
        code = left.code
    except Exception:
        text = traceback.format_exc()
    finally:  # an interrupted command ignores both while its process ends; this process goes on
        for number, handler in before.items():
            signal.signal(number, handler)
    return code, text + "".join(capsys.readouterr())


def test_a_password_in_the_environment_is_in_no_refusal(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CPN_STUDY_URL", STUDY)
    code, said = start(capsys)
    assert code == 2 and "://me:***@127.0.0.1:9/studies" in said
    assert leaks(place, said) == []


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_a_sweep_writes_no_secret_anywhere(
    end: type[BaseException], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records on the way to a server that is away, the study, the kept specification, all that is said, a traceback."""

    def broken(*_: Any, **__: Any) -> None:
        raise end("the work")

    monkeypatch.setattr(trial_loop, "run_trials", broken)
    code, said = start(capsys, f"tracking.uri={STORE}", f"notify.command={HOOK}")
    assert (code == 130) if end is KeyboardInterrupt else ("RuntimeError: the work" in said)
    written = {path.name for path in place.rglob("*") if path.is_file()}
    assert {"spec.yaml", "events.jsonl", "study.db", "manifest.json"} <= written
    assert "tracking.uri: http://me:***@127.0.0.1:9 does not answer" in said
    assert "http://me:***@" in (place / "sweeps" / "small" / "records" / "events.jsonl").read_text()
    assert leaks(place, said) == []


def test_a_secret_on_the_command_line_is_not_said_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = start(capsys, f"tracking.study={STUDY}", f"notify.command={HOOK}", dry=True)
    assert code == 0 and "postgresql://me:***@" in said and "notify.command=***" in said
    code, refused = start(capsys, f"tracking.study=[{STUDY}]", dry=True)
    assert code == 2 and leaks(place, said + refused) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"no-such-program --header 'Authorization: Bearer {SECRET}'", "cannot be run (No such file or directory)"),
        (f"sh -c 'exit 3' {SECRET}", "ended with exit code 3"),
        (f"sleep 60 # {SECRET}", "exit code"),
        (f"sh -c 'sleep 60' {SECRET}", "did not end within 0.2 seconds"),
        (f"curl 'no end {SECRET}", "cannot be run (No closing quotation)"),
    ],
)
def test_a_notice_that_fails_ends_no_sweep_and_shows_no_token(
    command: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LIMIT_S", 0.2 if words.startswith("did not end") else 60.0)
    said: list[str] = []
    notify.run(command, "the summary", {}, said.append)
    [warning] = said
    assert words in warning and SECRET not in warning
    monkeypatch.setattr(notify, "LIMIT_S", 60.0)
    notify.run("cat", "the summary", {}, said.append)
    assert said == [warning]


PLACES = [
    ("tracking.uri", f"http://me:{SECRET}@127.0.0.1:9/x?token={SECRET}"),
    ("tracking.uri", f"http://me:se/{SECRET}@127.0.0.1:9"),
    ("tracking.study", f"postgresql://me@corp:{SECRET}@127.0.0.1:9/studies?sslpassword={SECRET}"),
    ("tracking.study", f"nonsense://me:{SECRET}@127.0.0.1:9/studies"),
    ("resources.storage", f"s3://AKIA:{SECRET}@bucket/runs"),
    ("resources.storage", f"s3://bucket/runs?secret_key={SECRET}"),
    ("data.root", f"s3://AKIA:{SECRET}@bucket/voc"),
    ("network.weights", f"https://{SECRET}@example.org/w.safetensors"),
    ("name", f"x?password={SECRET}"),
    ("no.such", f"postgresql://me:{SECRET}@h/db"),
]


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(("key", "value"), PLACES, ids=[f"{key}-{n}" for n, (key, _) in enumerate(PLACES)])
def test_a_value_that_carries_a_secret_is_shown_masked(
    key: str, value: str, dry: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused, priced, or on its way: in what is printed and in every file, the specification itself aside."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"the work on {value}")

    monkeypatch.setattr(trial_loop, "run_trials", broken)
    elsewhere = [] if key == "tracking.uri" else ["tracking.uri=http://127.0.0.1:9"]  # making a store takes seconds
    _, said = start(capsys, f"{key}={value}", *elsewhere, dry=dry)
    assert said and leaks(place, said) == []


def test_a_failed_trials_reason_is_masked_everywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker's exception quotes what it could not open."""

    def failing(trials: Study, *_: Any, listener: Any, **__: Any) -> None:
        row = trials.ask()
        assert row is not None
        listener.started(row.uid)
        trials.tell(row.uid, State.FAIL, reason=f"cannot open s3://AKIA:{SECRET}@bucket/x?X-Amz-Signature={SECRET}")
        listener.ended(row.uid)
        listener.reported(row.uid, {"note": f"token={SECRET}"})

    monkeypatch.setattr(trial_loop, "run_trials", failing)
    code, said = start(capsys, "tracking.uri=http://127.0.0.1:9")
    assert code == 1 and "cannot open s3://AKIA:***@bucket/x?X-Amz-Signature=***" in said and "token=***" in said
    assert leaks(place, said) == []
