"""Out of memory at an image: one line with the image, its size and the cure, wherever images are read one by one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import cpn.data.map_files
import cpn.plots.panel_images
import cpn.run
import cpn.scoring.cam
import cpn.scoring.mask_free_scoring
import cpn.scoring.scale_scores
import cpn.segmentation.deeplab
import cpn.stages.affinity_stages
import cpn.stages.irn_stages
import cpn.stages.pipeline
import cpn.voc_submission
from cpn.config import config_from
from cpn.config.cam import CamConfig
from cpn.core.errors import InputError, WorkError, is_out_of_memory, run_command
from cpn.core.progress import silent
from cpn.data.image_memory import CAM_CURE, DEEPLAB_CURE, SCALE_DOWN, image_of, working_on
from cpn.data.voc import Split
from cpn.sources.packing import prepare
from cpn.stages.predictor import Predictor
from tests.cpn.small_voc import write_sized_voc

OUT = {
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 45.78 GiB.\nGPU 0 has"),
    "torch on the CPU": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 98304000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "torch on the CPU, shorter": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    "oneDNN": lambda: RuntimeError("could not create a memory object"),
    "cuDNN": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuBLAS": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "numpy": lambda: np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(np.float32)),
    "Python": lambda: MemoryError(),
    "C++": lambda: RuntimeError("std::bad_alloc"),
    "OpenCV": lambda: RuntimeError("OpenCV(4.9) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate"),
    "the system": lambda: OSError(12, "Cannot allocate memory"),
}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("two")
    write_sized_voc(root, {"first": (20, 30), "second": (40, 60)})
    return prepare(root, ["train"], scored=["train"]).split("train")


@pytest.mark.parametrize("kind", OUT)
def test_every_library_s_out_of_memory_names_the_image(split: Split, kind: str) -> None:
    for enter, words in (
        (lambda: image_of(split, 1, CAM_CURE), "second: out of memory at 60x40 pixels; set cam.max_pixels"),
        (lambda: working_on("/a/cat.jpg", 3000, 4000, "lower --long-side"), "/a/cat.jpg: out of memory at 4000x3000"),
    ):
        with pytest.raises(WorkError) as refused, enter():
            raise OUT[kind]()
        assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes do not match"), InputError("x: out of memory"), WorkError("out of memory"), KeyError("a"),
     OSError(2, "No such file")],
)  # fmt: skip
def test_other_errors_pass_as_they_are(split: Split, error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as passed, image_of(split, 0, CAM_CURE):
        raise error
    assert passed.value is error


def test_a_memory_error_elsewhere_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise OUT["torch on the CPU"]()

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.startswith("failed: out of memory (") and said.count("\n") == 1


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def inputs(split: Split, folder: Path) -> Any:
    """What a stage reads, with maps for every image."""
    (folder / "cam").mkdir(parents=True)
    for index, name in enumerate(split.ids):
        present = cpn.data.map_files.present_classes(split.labels[index])
        maps = np.zeros((len(present), *split.size(index)), np.float32)
        cpn.data.map_files.save_maps(folder / "cam" / f"{name}.npz", maps, present)
    config = config_from({"network": {"backbone": "scene"}, "affinity": {"widths": [2, 2, 2]}}, "test")
    return SimpleNamespace(
        split=split, config=config, device=torch.device("cpu"), model=folder / "m", classes=4, beta=0.5, walk=None,
        folders={"cam": folder / "cam"},
    )  # fmt: skip


Read = Callable[[Split, Path], Any]
LOOPS: dict[str, tuple[list[tuple[Any, str]], Read, str]] = {
    # what runs out of memory, the loop over a list, and the cure that is named
    "score": ([(cpn.run, "image_counts")], lambda s, _: cpn.run.score(None, s, CamConfig(), 4), CAM_CURE),
    "score_by_scale": (
        [(cpn.run, "counts_by_scale")],
        lambda s, f: cpn.run.score_by_scale(None, s, CamConfig(), 4, f / "counts.npz"),
        CAM_CURE,
    ),
    "score_list": (
        [(cpn.scoring.scale_scores, "counts_by_scale")],
        lambda s, _: cpn.scoring.scale_scores.score_list(None, s, CamConfig(), 4, silent),
        CAM_CURE,
    ),
    "score_without_masks": (
        [(cpn.scoring.mask_free_scoring, "image_scores")],
        lambda s, _: cpn.scoring.mask_free_scoring.score_without_masks(None, s, CamConfig()),
        CAM_CURE,
    ),
    "panel_images": (
        [(cpn.plots.panel_images, "panel_arrays")],
        lambda s, _: cpn.plots.panel_images.panel_images(None, s, config_from({}, "test"), 0.5),
        CAM_CURE,
    ),
    "make_cams": (
        [(cpn.stages.pipeline, "multi_scale_maps")],
        lambda s, f: cpn.stages.pipeline.make_cams(inputs(s, f), [0, 1], f),
        CAM_CURE,
    ),
    "make_crf_scores": (
        [(cpn.stages.affinity_stages, "crf_scores")],
        lambda s, f: cpn.stages.affinity_stages.make_crf_scores(inputs(s, f), [0, 1], f),
        SCALE_DOWN,
    ),
    "make_irn_labels": (
        [(cpn.stages.irn_stages, "confident_label")],
        lambda s, f: cpn.stages.irn_stages.make_irn_labels(inputs(s, f), [0, 1], f),
        SCALE_DOWN,
    ),
    "walk_affinities": (
        [(cpn.stages.affinity_stages, "pseudo_label")],
        lambda s, f: cpn.stages.affinity_stages.walk_affinities(
            inputs(s, f), config_from({}, "test").random_walk, [0, 1], f
        ),
        SCALE_DOWN,
    ),
    "walk_to_edges": (
        [(cpn.stages.irn_stages, "irn_label")],
        lambda s, f: cpn.stages.irn_stages.walk_to_edges(inputs(s, f), [0, 1], f),
        SCALE_DOWN,
    ),
    "evaluate": (
        [(cpn.segmentation.deeplab, "class_probabilities")],
        lambda s, _: cpn.segmentation.deeplab.evaluate(
            SimpleNamespace(eval=lambda: None, classes=4), s, config_from({}, "t").deeplab
        ),
        DEEPLAB_CURE,
    ),
    "predict_list": (
        [(cpn.segmentation.deeplab, "predict_label")],
        lambda s, f: cpn.voc_submission.predict_list(None, s, config_from({}, "t").deeplab, True, f),
        DEEPLAB_CURE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_over_a_list_names_its_image(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broken, loop, cure = LOOPS[name]
    for module, function in broken:
        monkeypatch.setattr(module, function, out_of_memory)
    network = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr(cpn.stages.pipeline, "load_run", lambda *_: (network, None, None))
    monkeypatch.setattr(cpn.stages.affinity_stages, "affinity_network", lambda *_: network)
    monkeypatch.setattr(cpn.stages.irn_stages, "edge_network", lambda *_: network)
    with pytest.raises(WorkError) as refused:
        loop(split, tmp_path)
    said = str(refused.value)
    assert any(said.startswith(f"{i}: out of memory at {s} pixels; {cure}") for i, s in
               (("first", "30x20"), ("second", "60x40"))), said  # fmt: skip


def test_a_picture_that_is_predicted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "_mask", out_of_memory)
    model = Predictor(None, config_from({}, "t"), ("a",), False, 0.5, 0.5, 32)  # type: ignore[arg-type]
    with pytest.raises(WorkError, match="^the image: out of memory at 32x16 pixels; lower --long-side"):
        model(np.zeros((40, 80, 3), np.uint8))
