"""The package is called `platform` like a module of the standard library: both have to be there, everywhere, whole."""

import ast
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


# A program that writes down what `platform` offers: its names, and what its calls without arguments answer.
PROBE = """
import json, platform, sys
def answer(name):
    value = getattr(platform, name)
    if not callable(value) or isinstance(value, type):
        return None
    try:
        return repr(value())
    except Exception as error:
        return repr(error)
result = {name: answer(name) for name in dir(platform) if not name.startswith("_")}
result["special"] = [name for name in dir(platform) if name.startswith("__")]
result["path"] = list(getattr(platform, "__path__", []))
"""


PRINT = "print(json.dumps(result))"


SPECIAL = {"__doc__", "__file__", "__name__", "__spec__", "__version__", "__copyright__"}


def probe(folder: Path, *options: str, python: str = sys.executable, env: dict[str, str] | None = None) -> dict:
    """What `platform` offers to a program started in `folder`."""
    command = [python, *options, "-c", PROBE + PRINT]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def without_project() -> dict[str, str]:
    """The environment without the PYTHONPATH that leads to this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def stdlib() -> dict:
    """What the standard library's own module offers: -I ignores folders and environment, -S every .pth file."""
    offered = probe(CHECKOUT, "-I", "-S")
    assert offered["path"] == [] and "node" in offered and len(offered) > 30
    return offered


def same(ours: dict, stdlib: dict) -> None:
    """Every name is there and every call answers the same."""
    names = set(stdlib) - {"special", "path"}
    assert names <= set(ours)
    assert {name: ours[name] for name in names} == {name: stdlib[name] for name in names}
    assert set(ours["special"]) >= SPECIAL


def spawned(queue: multiprocessing.Queue) -> None:
    """Runs in a spawned child."""
    scope: dict = {}
    exec(PROBE, scope)
    queue.put(scope["result"])


def test_from_the_root_of_the_checkout(stdlib: dict) -> None:
    ours = probe(CHECKOUT, env=without_project())
    same(ours, stdlib)
    assert str(CHECKOUT / "platform") in ours["path"]


def test_through_pythonpath_in_another_folder(stdlib: dict, tmp_path: Path) -> None:
    ours = probe(tmp_path, env={**without_project(), "PYTHONPATH": str(CHECKOUT)})
    same(ours, stdlib)
    assert str(CHECKOUT / "platform") in ours["path"]


def test_inside_pytest(stdlib: dict) -> None:
    scope: dict = {}
    exec(PROBE, scope)
    same(scope["result"], stdlib)
    assert scope["result"]["path"][0] == str(CHECKOUT / "platform")


def test_in_a_spawned_child(stdlib: dict) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=spawned, args=(queue,))
    child.start()
    ours = queue.get(timeout=60)
    child.join()
    same(ours, stdlib)
    assert str(CHECKOUT / "platform") in ours["path"]


@pytest.mark.ray
def test_in_a_worker_of_ray(stdlib: dict) -> None:
    from platform.cluster.local_ray import start_ray

    import ray

    def offered() -> dict:
        scope: dict = {}
        exec(PROBE, scope)
        return scope["result"]

    start_ray()
    try:
        ours = ray.get(ray.remote(offered).remote())
    finally:
        ray.shutdown()
    same(ours, stdlib)
    assert str(CHECKOUT / "platform") in ours["path"]


def test_a_submodule_runs_as_a_command(tmp_path: Path) -> None:
    """`python -m platform.NAME` in a copy, with a submodule that imports the package and a sibling."""
    shutil.copytree(CHECKOUT / "platform", tmp_path / "platform")
    (tmp_path / "platform" / "one_probe.py").write_text("VALUE = 7\n")
    (tmp_path / "platform" / "two_probe.py").write_text(
        "import platform\nfrom . import one_probe\nprint(one_probe.VALUE, platform.python_version())\n"
    )
    command = [sys.executable, "-S", "-m", "platform.two_probe"]
    done = subprocess.run(command, cwd=tmp_path, env=without_project(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", sys.version.split()[0]]


def test_no_submodule_is_named_like_an_attribute(stdlib: dict) -> None:
    """Importing `platform.node` would put a module in the place of the function."""
    ours = {path.stem for path in (CHECKOUT / "platform").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert ours & (set(stdlib) | {"uname", "system", "node", "release", "version", "machine", "processor"}) == set()


def test_nothing_but_the_standard_library_in_the_package_file() -> None:
    """Installed, `platform/__init__.py` is never run: whatever it held would be missing there."""
    body = ast.parse((CHECKOUT / "platform" / "__init__.py").read_text()).body
    assert [type(statement).__name__ for statement in body] == ["Expr", "Import", "Import", "Assign", "Expr"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a virtual environment that holds the built wheel and nothing else. Needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-cache-dir"]
    # Built from a copy that has one submodule more, so that there is something small to run.
    source = folder / "source"
    names = ["pyproject.toml", "LICENSE", "README.md", "zz_cpn_platform.pth", "cpn", "platform"]
    source.mkdir()
    for name in names:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name)
        elif (CHECKOUT / name).exists():
            shutil.copy(CHECKOUT / name, source / name)
    (source / "platform" / "probe.py").write_text("import cpn, platform\nprint(platform.node.__name__, __file__)\n")
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, env=without_project())
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", *offline, str(wheel)], check=True, env=without_project())
    return python


@pytest.mark.slow
def test_the_installed_wheel_works_from_an_empty_folder(stdlib: dict, installed: Path, tmp_path: Path) -> None:
    ours = probe(tmp_path, python=str(installed), env=without_project())
    same(ours, stdlib)
    (place,) = ours["path"]
    assert Path(place).is_relative_to(installed.parents[1])
    command = [str(installed), "-m", "platform.probe"]
    done = subprocess.run(command, cwd=tmp_path, env=without_project(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["node", str(Path(place) / "probe.py")]
    assert done.stderr == ""


@pytest.mark.slow
def test_the_pth_file_is_silent_without_the_package(installed: Path, tmp_path: Path) -> None:
    """Half removed, the install must not disturb the interpreter that it lies in."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    shutil.copy(CHECKOUT / "zz_cpn_platform.pth", site)
    command = [str(folder / "bin" / "python"), "-c", "import platform; print(platform.__path__, platform.system())"]
    done = subprocess.run(command, cwd=tmp_path, env=without_project(), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[] Linux\n", "")
