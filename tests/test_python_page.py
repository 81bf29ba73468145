"""docs/python.md, block by block, on the smallest sweep: stopped in a notebook's cell, gone on with in a thread."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.small_base import BASE
from tests.conftest import CHECKOUT

SPACE = (
    "name: quickstart\n"
    + BASE
    + """\
search:
  loss.w_tcp: {float: [0.1, 10], log: true}
budget: {trials: 1}
resources: {gpus_per_worker: 0}
confirm: {top_k: 0}
"""
)
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (CHECKOUT / "docs/python.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
NOTEBOOK = """
import asyncio, json, logging, os, signal, threading
from platform.api import run_sweep, sweep_result

class StopsOnce(logging.Handler):
    lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())
        if " complete  miou" in record.getMessage():
            logging.getLogger("platform.api").removeHandler(self)
            os.kill(os.getpid(), signal.SIGINT)

async def cell():
    try:
        run_sweep(SPACE)
    except KeyboardInterrupt:
        return "stopped"

SPACE = "search_spaces/quickstart.yaml"
before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
logging.getLogger("platform.api").addHandler(StopsOnce())
logging.getLogger("platform.api").setLevel(logging.INFO)
facts = {"cell": asyncio.new_event_loop().run_until_complete(cell()), "state": sweep_result("quickstart").state}
facts["heard"] = StopsOnce.lines
results = []
thread = threading.Thread(target=lambda: results.append(run_sweep(SPACE)))
thread.start()
thread.join()
after = {number: signal.getsignal(number) for number in before}
facts |= {"thread": results[0].state, "verdict": results[0].verdict, "signals": before == after}
facts["omp"] = os.environ["OMP_NUM_THREADS"]
json.dump(facts, open("facts.json", "w"))
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder`; it has two maths threads, which a sweep's processes must not take from it."""
    (folder / "program.py").write_text(code)
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=800
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the search space of the page is the smallest one, beside a picture."""
    made = tmp_path_factory.mktemp("page")
    (made / "search_spaces").mkdir()
    (made / "search_spaces" / "quickstart.yaml").write_text(SPACE)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    cv2.imwrite(str(made / "picture.jpg"), picture)
    return made


@pytest.fixture(scope="module")
def notebook(folder: Path) -> subprocess.CompletedProcess[str]:
    """A sweep that is interrupted in the main thread, inside a running event loop, and goes on in another thread."""
    return run(NOTEBOOK, folder)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_interrupt_stops_it_and_another_thread_goes_on(
    notebook: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert notebook.returncode == 0, notebook.stderr
    facts = json.loads((folder / "facts.json").read_text())
    assert (facts["cell"], facts["state"]) == ("stopped", "stopped") and "starting Ray" in facts["heard"]
    assert facts["thread"] == "finished" and facts["verdict"].startswith("not tested")
    assert facts["signals"] and facts["omp"] == "2", "what was the caller's is the caller's"
    assert len(list(folder.glob("sweeps/runs/*/result.json"))) == 2, "the reference, and cam_baseline with a fresh seed"


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_printed(notebook: subprocess.CompletedProcess[str]) -> None:
    assert (notebook.stdout, notebook.stderr) == ("", "")


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_block_of_the_page_runs(notebook: subprocess.CompletedProcess[str], folder: Path) -> None:
    done = run("\n".join(BLOCKS), folder)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^ *print\(error\)  # (.*)$", "\n".join(BLOCKS), re.MULTILINE)
    assert said and all(line in done.stdout.splitlines() for line in said)
    assert "verdict: not tested" in done.stdout, "with quiet=False the sweep shows its end"
    assert "starting Ray" not in done.stdout, "the sweep was done"


def test_readme_shows_the_first_block_which_is_short() -> None:
    assert len(BLOCKS) == 7 and len(BLOCKS[0].splitlines()) < 10
    assert f"```python\n{BLOCKS[0]}```" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_patches_on_another_loop_are_the_terms_of_the_method() -> None:
    """The block of 30 lines gives what `cpn_losses` gives of the same draws, and trains the network it was given."""
    import torch

    from cpn import Branch, LossConfig, PatchesConfig, complementary_pair, cpn_losses, hidden_mask
    from cpn.models.losses import classification_loss

    torch.manual_seed(0)
    block = BLOCKS[6]
    assert len(block.splitlines()) <= 30
    tiles = np.random.default_rng(1).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    pictures = tiles.repeat(8, axis=1).repeat(8, axis=2)  # in noise there are no superpixels
    labels = torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 1.0, 0, 0, 0, 0]])
    names: dict[str, Any] = {"pictures": pictures, "labels": labels}
    exec(compile(block, "docs/python.md", "exec"), names)
    network, images = names["classifier"], names["images"]
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())

    torch.nn.init.constant_(network[2].bias, 1.0)  # maps above 0, else all of them are the same
    names["draws"] = np.random.default_rng(7)
    cls, tcp = names["complementary_terms"](network, images, pictures, labels)
    rng = np.random.default_rng(7)
    drawn = [hidden_mask(picture, PatchesConfig(kind="superpixel", S_N=40), rng) for picture in pictures]
    masks, lam = torch.from_numpy(np.stack([mask for mask, _ in drawn])), torch.tensor([share for _, share in drawn])
    branches = []
    for view in (images, *complementary_pair(images, masks)):
        maps = torch.nn.functional.interpolate(network(view), images.shape[-2:], mode="bilinear", align_corners=True)
        maps = torch.cat([maps.new_zeros(2, 1, 32, 48), maps], dim=1)
        branches.append(Branch(maps, maps))
    config = LossConfig(w_cpcr=0, tcp_refined=False)
    terms = cpn_losses(branches[0], branches[1], branches[2], labels, lam, config)
    torch.testing.assert_close(tcp, terms["tcp"])
    assert tcp > 0
    torch.testing.assert_close(cls, sum(classification_loss(branch.cam, labels) for branch in branches[1:]) / 2)
    gradients = torch.autograd.grad(tcp, network.parameters())
    own = torch.autograd.grad(terms["tcp"], network.parameters())
    for mine, theirs in zip(gradients, own, strict=True):
        torch.testing.assert_close(mine, theirs)
