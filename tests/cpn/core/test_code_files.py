"""A user's own code is imported only from files that nobody else could have written, whichever command imports it."""

import grp
import importlib.util
import os
import pwd
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from platform.run import sweep_context
from types import SimpleNamespace

import pytest
from PIL import Image

from cpn.config import config_from
from cpn.core.code_files import LOOKED_AT, check_code, is_private, known_code, on_the_way
from cpn.core.errors import InputError, run_command
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import save_model
from cpn.models.scene_backbone import SceneBackbone

NAME = "own_kinds.net:Net"
OTHER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with a package, and a module that it imports; each leaves a mark when it is run."""
    folder = tmp_path / "way" / "code"
    (folder / "own_kinds").mkdir(parents=True)
    mark = f"from pathlib import Path\nPath({str(tmp_path)!r}, 'run').touch()\n"
    (folder / "own_kinds" / "__init__.py").write_text(mark)
    (folder / "own_kinds" / "net.py").write_text(
        f"{mark}import own_sizes\nfrom cpn.models.scene_backbone import SceneBackbone\n\n\n"
        "class Net(SceneBackbone): ...\n"
    )
    (folder / "own_sizes.py").write_text(mark)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    for name in ("own_kinds", "own_kinds.net", "own_sizes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def mode(path: str, bits: int) -> Callable[[Path], None]:
    return lambda place: (place / path).chmod(bits)


def given(path: str) -> Callable[[Path], None]:
    return lambda place: os.chown(place / path, OTHER, OTHER)


def bytecode(folder: int, file: int) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        cached = Path(importlib.util.cache_from_source(str(place / "own_sizes.py")))
        cached.parent.mkdir()
        cached.write_bytes(b"")
        cached.chmod(file)
        cached.parent.chmod(folder)

    return make


def linked(bits: int) -> Callable[[Path], None]:
    """The package lies elsewhere, behind two links, the second in a folder of these rights."""

    def make(place: Path) -> None:
        there, between = place.parents[1] / "there", place.parents[1] / "between"
        (place / "own_kinds").rename(there)
        between.mkdir()
        (between / "link").symlink_to("../there")
        (place / "own_kinds").symlink_to(between / "link")
        between.chmod(bits)

    return make


REFUSED = {
    "the module is for all": (mode("own_kinds/net.py", 0o666), "own_kinds/net.py can be written", "chmod go-w"),
    "for a group": (mode("own_kinds/net.py", 0o664), "own_kinds/net.py can be written by others", "(mode 664)"),
    "the package around it": (mode("own_kinds/__init__.py", 0o646), "__init__.py can be written"),
    "what it imports": (mode("own_sizes.py", 0o666), "own_sizes.py can be written"),
    "its folder": (mode("own_kinds", 0o777), "own_kinds can be written"),
    "a folder above": (mode("..", 0o757), "way can be written", "(mode 757)"),
    "a folder that a link leads through": (linked(0o777), "between can be written"),
    "the bytecode": (bytecode(0o755, 0o666), ".pyc can be written"),
    "the folder of the bytecode": (bytecode(0o777, 0o644), "__pycache__ can be written"),
}  # fmt: skip
REFUSED_TO_ROOT = {
    "the module is another user's": (given("own_kinds/net.py"), "net.py belongs to user ", "use a copy of your own"),
    "what it imports is": (given("own_sizes.py"), "own_sizes.py belongs to user "),
    "its folder is": (given("own_kinds"), "own_kinds belongs to user "),
}
TAKEN = {
    "as it is": lambda place: None,
    "read-only": mode("own_kinds/net.py", 0o444),
    "a sticky folder above": mode("..", 0o1777),
    "links through folders that nobody else may write to": linked(0o755),
    "what lies beside and is imported by nobody": lambda place: (place / "own_kinds" / "apart.py").touch(0o666),
}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        *(pytest.param(row[0], row[1:], id=name) for name, row in REFUSED.items()),
        *(pytest.param(row[0], row[1:], id=name, marks=as_root) for name, row in REFUSED_TO_ROOT.items()),
    ],
)
def test_what_somebody_else_could_have_written_is_not_run(
    spoil: Callable[[Path], None], words: tuple[str, ...], place: Path, tmp_path: Path
) -> None:
    spoil(place)
    with pytest.raises(InputError) as refused:
        build_backbone(NAME)
    said = str(refused.value)
    assert said.startswith(f"network.backbone: {NAME!r} is code that somebody else could have written: ")
    assert all(word in said for word in words), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("prepare", TAKEN.values(), ids=TAKEN)
def test_what_nobody_else_could_have_written_is_run(prepare: Callable[[Path], None], place: Path) -> None:
    prepare(place)
    check_code(NAME)
    assert isinstance(build_backbone(NAME), SceneBackbone)


def test_packages_around_an_absent_module_are_not_run(place: Path, tmp_path: Path) -> None:
    (place / "own_kinds" / "__init__.py").chmod(0o666)
    with pytest.raises(InputError, match="could have written"):
        build_backbone("own_kinds.absent:Net")
    assert not (tmp_path / "run").exists()


def test_code_in_an_archive_is_not_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("zipped_net.py", "def net(): raise AssertionError\n")
    monkeypatch.syspath_prepend(str(tmp_path / "z.zip"))
    with pytest.raises(InputError, match="zipped_net.*unpack the archive"):
        build_backbone("zipped_net:net")


@pytest.mark.parametrize("name", ["os:abort", "posix:abort", "sys:exit", "faulthandler:disable"])
def test_python_s_own_functions_are_no_backbones(name: str) -> None:
    """A configuration could end the process by one."""
    with pytest.raises(InputError, match="is of Python's own and no backbone"):
        build_backbone(name)


def test_workers_run_the_bytes_that_the_driver_has_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray unpacks what is sent to a cluster in folders of mode 777; other bytes are looked at as ever."""
    monkeypatch.setenv(LOOKED_AT, "sha256:0 " + known_code([NAME])[NAME])
    (place / "own_kinds").chmod(0o777)
    check_code(NAME)
    (place / "own_sizes.py").write_text("changed = 1\n")
    with pytest.raises(InputError, match="could have written"):
        check_code(NAME)


def test_a_group_of_one_s_own_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """umask 002, the default of several systems, makes files of mode 664 and a group of one."""
    monkeypatch.setattr(pwd, "getpwuid", lambda user: SimpleNamespace(pw_name="anna", pw_gid=1000))
    listed = {1000: ("anna", []), 1001: ("anna", ["anna"]), 50: ("staff", [])}
    monkeypatch.setattr(grp, "getgrgid", lambda g: SimpleNamespace(gr_name=listed[g][0], gr_mem=listed[g][1]))
    assert is_private(1000, 1000) and not is_private(1000, 50) and not is_private(1000, 1001)
    listed[1000] = ("anna", ["anna", "ben"])
    assert not is_private(1000, 1000) and not is_private(0, 1000) and not is_private(1000, 7)


def test_links_that_lead_nowhere_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(list(on_the_way(tmp_path / "a" / "x"))) < 100
    (tmp_path / "c").symlink_to(tmp_path)
    assert list(on_the_way(tmp_path / "c" / "y"))[-1] == tmp_path.resolve() / "y"


def checkpoint(path: Path, kind: str) -> None:
    """A file that says it is a network of this kind over the user's backbone."""
    config = config_from({"preset": "scenes", "network": {"backbone": NAME, "weights": None}}, "test")
    metadata = {"kind": kind, "config": config.model_dump(mode="json"), "classes": ["cat"], "beta": 0.5}
    save_model(path, SceneBackbone(), metadata)


SETS = f"--set preset=scenes --set network.weights=null --set network.backbone={NAME}"
COMMANDS = (
    f"cpn.backbone --check {NAME}",
    f"cpn.predict cam.safetensors picture.png --backbone {NAME}",
    f"cpn.predict deeplab.safetensors picture.png --backbone {NAME}",
    f"cpn.score cam.safetensors --root data --backbone {NAME}",
    f"cpn.weights cam.safetensors --backbone {NAME}",
    f"platform.train {SETS}",
    f"platform.sweep s.yaml {SETS}",
    f"platform.sweep s.yaml --dry-run {SETS}",
    f"platform.sweep s.yaml --dry-run --run-code {SETS}",
    "platform.sweep s.yaml --set preset=scenes --set network.weights=null --set random_walk.kind=irn "
    f"--set irn.backbone={NAME}",
    f"platform.sweep s.yaml --set preset=scenes --set search.network.backbone.choice=[scene,{NAME}]",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_it(
    command: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_far(*_: object, **__: object) -> None:
        raise AssertionError("the work was to begin")

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sweep_context, "ray_cluster", too_far)
    for kind in ("cam", "deeplab"):
        checkpoint(work / f"{kind}.safetensors", kind)
    Image.new("RGB", (8, 8)).save(work / "picture.png")
    (work / "s.yaml").write_text("{name: s, budget: {trials: 2}, resources: {gpus_per_worker: 0}}")
    (place / "own_sizes.py").chmod(0o666)
    module, *arguments = command.split()
    with pytest.raises(SystemExit) as left:
        run_command(lambda: importlib.import_module(module).main(arguments))
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1, said
    assert NAME in said and "is code that somebody else could have written: " in said and "own_sizes.py" in said
    assert not (tmp_path / "run").exists()
