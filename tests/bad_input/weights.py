"""Files of weights and checkpoints: from elsewhere, from yesterday, cut off, or made by somebody who means harm."""

import json
import os
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from cpn.config import config_from
from cpn.core.files import file_digest, read_json, write_json
from cpn.data.voc import VOC_CLASSES
from cpn.models.backbone import build_backbone
from cpn.models.checkpoint import read_metadata, save_model
from cpn.models.network import build_network
from cpn.sources.packing import prepare
from tests.bad_input.case import DRY, Case, Make, both, nothing, spec, text_file, voc

CONVERT = "cpn.weights w.pth"
SCENES = "--set preset=scenes --set network.weights="
SCORE = "cpn.score model.safetensors --root data"
SUBMIT = "cpn.voc_submission model.safetensors --root data --list val --out results.tgz"
PREDICT = "cpn.predict model.safetensors"
PICTURE = "data/JPEGImages/2007_000032.jpg"
NETWORK = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8, "weights": None}
HARM = "import os\nopen('executed', 'w').close()\n"


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def scene(change: Callable[[dict[str, Tensor]], object] = lambda _: None) -> dict[str, Tensor]:
    """The state of the scenes' backbone, changed."""
    torch.manual_seed(0)
    state = dict(build_backbone("scene").state_dict())
    change(state)
    return state


def first_set_to(value: float) -> dict[str, Tensor]:
    return scene(lambda state: next(v for v in state.values() if v.is_floating_point()).view(-1)[:1].fill_(value))


def torch_file(make: Callable[[], Any], name: str = "w.pth", zipped: bool = True) -> Make:
    return lambda place: torch.save(make(), place / name, _use_new_zipfile_serialization=zipped)


def tensors(make: Callable[[], dict[str, Tensor]], name: str = "w.safetensors") -> Make:
    return lambda place: (place / name).write_bytes(save(make())) and None


def params_of(name: str, content: bytes) -> Make:
    return text_file(struct.pack("<QQQ", 0x112, 0, 1) + content, name)


def model(metadata: dict[str, Any] | None = None, poison: bool = False, **changes: Any) -> Make:
    """A packed data set in data/, and a CAM network of its classes whose metadata are changed."""

    def make(place: Path) -> None:
        voc()(place)
        prepare(place / "data", ["train", "val"])
        config = config_from({"preset": "scenes", "network": NETWORK}, "test")
        torch.manual_seed(0)
        network = build_network(config.network, len(VOC_CLASSES) + 1)
        if poison:
            torch.nn.init.constant_(next(network.parameters()), float("nan"))
        whole = {"kind": "cam", "config": config.model_dump(mode="json"), "classes": list(VOC_CLASSES)}
        save_model(place / "model.safetensors", network, metadata if metadata is not None else {**whole, **changes})

    return make


def retyped(state: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Turn the weights of all layers into numbers of another kind."""
    state.update({name: value.to(dtype) for name, value in state.items() if value.is_floating_point()})


def remade(change: Callable[[dict[str, Tensor]], object]) -> Make:
    """A CAM network's file whose tensors were changed by another program, which wrote no digest of them."""

    def make(place: Path) -> None:
        model()(place)
        path = place / "model.safetensors"
        said, state = read_metadata(path), load_file(path)
        change(state)
        path.write_bytes(save(state, {"cpn": json.dumps(said)}))

    return make


def nested() -> dict[str, Tensor]:
    """The state of the scenes' backbone, with a tensor of unequal rows, of which torch says that they are young."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rows = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.strided)
    return scene(lambda state: state.update({next(iter(state)): rows}))


def turned_bit(place: Path) -> None:
    """A torch file whose largest part has one bit turned round."""
    torch.save(scene(), place / "w.pth")
    with ZipFile(place / "w.pth") as file:
        part = max(file.infolist(), key=lambda info: info.file_size)
    data = bytearray((place / "w.pth").read_bytes())
    data[part.header_offset + part.file_size // 2] ^= 1
    (place / "w.pth").write_bytes(data)


def with_code(name: str) -> Make:
    """A model that names evil.py beside it as its backbone."""
    config = config_from({"preset": "scenes", "network": {**NETWORK, "backbone": name}}, "test").model_dump(mode="json")
    return both(model(config=config), text_file(HARM + "def make(): return None\n", "evil.py"))


def saying(text: str) -> Make:
    """A file of tensors with `text` where the metadata of ours are."""
    content = save({"a": torch.zeros(1)}, {"cpn": text})
    return both(voc(), text_file(content, "model.safetensors"))


def wrong(name: str, command: str, make: Make, *words: str, **more: Any) -> Case:
    return Case(f"weights: {name}", command, words, make, **more)


def file(name: str, content: bytes | str, *words: str, file_name: str = "w.pth") -> Case:
    """A file that is none."""
    return wrong(name, f"cpn.weights {file_name}", text_file(content, file_name), file_name, *words)


def used(name: str, make: Make, *words: str, file_name: str = "w.safetensors") -> list[Case]:
    """Weights that a sweep and a single run are given: refused before scenes are made or data packed."""
    return [
        wrong(f"{name}, train", f"platform.train {SCENES}{file_name}", make, file_name, *words),
        wrong(f"{name}, sweep", f"platform.sweep s.yaml {SCENES}{file_name}", both(voc(), make), file_name, *words),
    ]


HEADER = b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}'
FILES = [
    wrong("no file", CONVERT, nothing, "w.pth: no such weights file", "ademxapp"),
    wrong("a pipe", CONVERT, lambda place: os.mkfifo(place / "w.pth"), "w.pth is a pipe (FIFO) and no regular file"),
    wrong("endless zeros", CONVERT, lambda place: (place / "w.pth").symlink_to("/dev/zero"), "w.pth is a device"),
    wrong("a folder", "cpn.weights .", nothing, ".: is a folder, no such weights file"),
    file("zero bytes", b"", "neither MXNet .params, torch nor safetensors"),
    file("a web page", "<html>Google Drive - Virus scan warning</html>", "neither MXNet .params, torch nor"),
    file("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\n", "neither MXNet .params, torch nor"),
    file("a gzip", b"\x1f\x8b\x08" + bytes(40), "neither MXNet .params, torch nor safetensors"),
    file("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(40), "neither MXNet .params, torch nor safetensors"),
    file("a numpy archive", b"PK\x03\x04" + bytes(60), "not loaded as a torch file", "copy it again"),
    file("a torch file that is cut off", b"PK\x03\x04\x14", "it is damaged or none", "copy it again"),
    file("an old torch file that is cut off", b"\x80\x02\x8a\nl", "it is damaged or none", "copy it again"),
    file("safetensors that are cut off", struct.pack("<Q", len(HEADER)) + HEADER + bytes(100),
         "a damaged safetensors file", "copy or convert it again"),
    file("safetensors with an endless header", struct.pack("<Q", 2**62) + b"{", "a damaged safetensors file"),
    file("safetensors with offsets outside", struct.pack("<Q", len(HEADER)) + HEADER.replace(b"4000", b"9999")
         + bytes(4000), "a damaged safetensors file"),
    wrong("params that are cut off", "cpn.weights w.params", params_of("w.params", b"\xc9\xfa\x93\xf9"), "w.params",
          "ends inside", "download the .params file again"),
    wrong("params with an endless array", "cpn.weights w.params",
          params_of("w.params", struct.pack("<IiIqqiii", 0xF993FAC9, 0, 2, 2**40, 2**40, 1, 0, 0)), "w.params",
          "ends inside", "download"),
    wrong("params with an endless list", "cpn.weights w.params", text_file(struct.pack("<QQQ", 0x112, 0, 2**60),
          "w.params"), "w.params", "ends inside array 1", "download"),
    wrong("code in a pickle", CONVERT, text_file(pickle.dumps(Payload()), "w.pth"), "w.pth", "not loaded as a torch"),
    wrong("code in a torch file", CONVERT, torch_file(Payload), "w.pth", "code in a file is not run", "state dict"),
    wrong("code in an old torch file", CONVERT, torch_file(Payload, zipped=False), "w.pth", "code in a file is not"),
    wrong("code beside the weights", CONVERT, torch_file(lambda: {"state_dict": scene(), "epoch": Payload()}), "w.pth",
          "code in a file is not run", "save its state dict alone"),
    wrong("code called .safetensors", "cpn.weights w.safetensors", torch_file(Payload, "w.safetensors"),
          "w.safetensors", "not loaded as a torch file"),
    wrong("a whole module", CONVERT, torch_file(lambda: torch.nn.Linear(2, 2)), "w.pth", "save its state dict alone"),
    wrong("a list of tensors", CONVERT, torch_file(lambda: [torch.zeros(2)]), "w.pth", "not a state dict of named"),
    wrong("a dict of numbers", CONVERT, torch_file(lambda: {"epoch": 3}), "w.pth", "not a state dict of named tensors"),
    wrong("an empty dict", CONVERT, torch_file(dict), "w.pth", "not a state dict of named tensors"),
    wrong("layers of no network we know", CONVERT, torch_file(lambda: {"a.weight": torch.zeros(2)}), "w.pth",
          "holds no layer of", "--backbone"),
    wrong("a checkpoint of CPN without its layers", CONVERT, torch_file(lambda: {"f10.weight": torch.zeros(2)}),
          "w.pth", "layers are missing"),
    wrong("a backbone that is unknown", f"{CONVERT} --backbone resnet5", torch_file(scene), "network.backbone",
          "'resnet5' is unknown; use"),
    wrong("a backbone that is no module", f"{CONVERT} --backbone no.such:thing", torch_file(scene), "network.backbone",
          "cannot be imported", "check the module's name"),
    wrong("--out as .pth", f"{CONVERT} --out x.pth", torch_file(scene), "x.pth: --out writes safetensors only", "end"),
    wrong("--out below a file", f"{CONVERT} --backbone scene --out w.pth/x.safetensors", torch_file(scene), "--out: ",
          "w.pth cannot be written", "choose another folder"),
    wrong("--out as a folder", f"{CONVERT} --backbone scene --out x.safetensors", both(torch_file(scene),
          lambda place: (place / "x.safetensors").mkdir()), "--out: x.safetensors is a folder; give the name of a"),
    wrong("--classes for a backbone", f"{CONVERT} --classes classes.txt", both(torch_file(scene), text_file(
          "dog\n", "classes.txt")), "--classes classes.txt: a backbone has no classes; leave it out"),
]  # fmt: skip

GIVEN = [
    *used("no file for a run", nothing, "no such weights file"),
    *used("a file in the home folder of nobody", nothing, "network.weights: ~nobody-there/w.pth: there is no such home",
          "write the whole path", file_name="~nobody-there/w.pth"),
    wrong("a choice of weights without its file", f"{DRY} --set search.network.weights.choice=[w.pth,none.pth]",
          both(spec(), torch_file(scene)), "network.weights: ", "none.pth: no such weights file", "check the path"),
    wrong("a backbone that is nowhere", f"{DRY} --set network.backbone=no_such_module:Net", spec(),
          "network.backbone: 'no_such_module:Net' cannot be imported", "run the command in the module's folder"),
    wrong("a choice of backbones, one nowhere", f"{DRY} --set search.network.backbone.choice=[scene,no_such:Net]",
          spec(), "network.backbone: 'no_such:Net' cannot be imported", "run the command in the module's folder"),
    *used("another network", tensors(lambda: {k: v for k, v in build_backbone("resnet50").state_dict().items()
          if k.startswith("conv1")}), "layers are missing", "network.backbone"),
    *used("a layer of another shape", tensors(lambda: scene(lambda state: state.update(
          {next(iter(state)): torch.zeros(1, 2, 3, 3)}))), "layers do not fit", "should be"),
    *used("a layer that is missing", tensors(lambda: scene(lambda state: state.pop(next(iter(state))))),
          "layers are missing"),
    *used("NaN inside", tensors(lambda: first_set_to(float("nan"))), "contains NaN or infinity"),
    *used("a layer of zeros", tensors(lambda: scene(lambda state: next(iter(state.values())).zero_())),
          "holds nothing but zeros", "give a file of this network.backbone"),
    *used("numbers too large for their sums", tensors(lambda: scene(lambda state: [value.fill_(3e38) for value in
          state.values() if value.is_floating_point()])), "its network's features are NaN or infinite; give a file of"),
    wrong("numbers too large for their sums, dry run", f"{DRY} {SCENES}w.pth", both(spec(), torch_file(lambda: scene(
          lambda state: [value.fill_(3e38) for value in state.values() if value.is_floating_point()]))), "w.pth",
          "features are NaN or infinite"),
    *used("infinity inside", tensors(lambda: first_set_to(float("inf"))), "contains NaN or infinity"),
    *used("numbers of 8 bits", tensors(lambda: scene(lambda state: retyped(state, torch.float8_e4m3fn))),
          "layers do not fit", "is torch.float8_e4m3fn and not float16, bfloat16, float32 or float64"),
    *used("a nested tensor", torch_file(nested), "is a nested, sparse or empty tensor", file_name="w.pth"),
    *used("a torch file with one bit turned", turned_bit, "a damaged torch file (", "is not what its checksum says",
          file_name="w.pth"),
    *used("a folder", lambda place: (place / "w.safetensors").mkdir(), "is a folder, no such weights file"),
    *used("code for a run", torch_file(Payload, "w.pth"), "code in a file is not run", file_name="w.pth"),
    wrong("a backbone misspelt, train", f"platform.train {SCENES}w.pth --set network.backbone=resnet83",
          torch_file(scene), "network.backbone: 'resnet83' is unknown; use"),
]  # fmt: skip

CHECKPOINTS = [
    wrong("no model", SCORE, voc(), "model.safetensors: no such file; give the model"),
    wrong("a backbone for a model", SCORE, both(voc(), tensors(scene, "model.safetensors")), "model.safetensors",
          "not one of this product"),
    wrong("a model that is cut off", SCORE, both(model(), lambda place: os.truncate(place / "model.safetensors", 900)),
          "model.safetensors", "not a readable"),
    wrong("a model with NaN inside", SCORE, model(poison=True), "model.safetensors: 'backbone", "contains NaN", "give"),
    *(wrong(f"a model of {kind} numbers", SCORE, remade(lambda state, dtype=dtype: retyped(state, dtype)),
            "model.safetensors: 'backbone", f"is {dtype} and not float16", "give")
      for kind, dtype in (("8 bit", torch.float8_e4m3fn), ("whole", torch.int8), ("complex", torch.complex64))),
    *(wrong(f"a model of numbers too large, {kind}", command, remade(lambda state: [value.fill_(3e38) for value in
            state.values() if value.is_floating_point()]), "model.safetensors: its network's scores are NaN or inf")
      for kind, command in (("score", SCORE), ("predict", f"{PREDICT} {PICTURE}"))),
    wrong("a model of negative variances", f"{PREDICT} {PICTURE}", remade(lambda state: [value.fill_(-1) for name, value
          in state.items() if "running_var" in name]), "model.safetensors: 'backbone", "has negative variances"),
    wrong("a folder for a model", SCORE, both(voc(), lambda place: (place / "model.safetensors").mkdir()),
          "model.safetensors: is a folder; name the model.safetensors of a run"),
    wrong("a model of another kind", SCORE, model(kind="deeplab"), "model.safetensors: a checkpoint of kind 'deeplab'"),
    wrong("a model that says nothing", SCORE, model({"kind": "cam"}), "model.safetensors", "lacks config or classes"),
    wrong("a model of the classes 7", SCORE, model(classes=7), "model.safetensors", "lacks config or classes"),
    wrong("a model of fewer classes", SCORE, model(classes=["dog"]), "model.safetensors: a checkpoint of another"),
    wrong("a model of a later version", SCORE, model(config={"network": {"shape": "round"}}), "model.safetensors",
          "network.shape: unknown key"),
    wrong("a model with a list for metadata", SCORE, saying("[1]"), "model.safetensors", "is damaged", "give a run's"),
    wrong("a model with broken metadata", SCORE, saying("{"), "model.safetensors", "is damaged", "give a run's"),
    wrong("a model of no classes", SCORE, model(classes=[]), "names 0 classes: 1 to 254 of different names"),
    wrong("a model of 100,000 classes", SCORE, model(classes=[f"c{i}" for i in range(100_000)]), "names 100000"),
    wrong("a model of 255 classes", SCORE, model(classes=[f"c{i}" for i in range(255)]), "names 255 classes"),
    wrong("a model of a class twice", SCORE, model(classes=["dog", "dog"]), "names 2 classes: 1 to 254 of different"),
    wrong("a model of a class that leaves the folder", SCORE, model(classes=["../x"]), "names a class '../x'",
          "has letters, digits and spaces; give a run's"),
    wrong("a model of a kind without end", SCORE, model(kind="x" * 10_000), f"of kind '{'x' * 40}', not of a CAM"),
    wrong("a model of a list for a kind", SCORE, model(kind=[1, {"a": 2}]), "of kind", "not of a CAM network"),
    wrong("a model wider than its file", SCORE, model(config=config_from({"preset": "scenes", "network": {**NETWORK,
          "stage3_channels": 2**16}}, "-").model_dump(mode="json")), "model.safetensors", "describes a network of"),
    wrong("a pipe for a model", SCORE, both(voc(), lambda place: os.mkfifo(place / "model.safetensors")), "is a pipe"),
    wrong("endless zeros for a model", SCORE,
          both(voc(), lambda place: (place / "model.safetensors").symlink_to("/dev/zero")), "is a device"),
    wrong("metadata that are deep", SCORE, saying("[" * 100_000), "model.safetensors", "is damaged", "give a run's"),
    wrong("metadata of megabytes", SCORE, saying('"' + "x" * 2_000_000 + '"'), "longer than 1000000 letters"),
    wrong("metadata of a number without end", SCORE, saying('{"kind": ' + "9" * 5000 + "}"), "is damaged", "give"),
    wrong("a model that names code", SCORE, with_code("evil:make"), "model.safetensors", "'evil:make'", "not run",
          "--backbone evil:make"),
    wrong("a model of another backbone", f"{SCORE} --backbone resnet38", model(), "model.safetensors", "scene",
          "leave that out"),
    wrong("a model that names a command", SCORE, with_code("os:abort"), "'os:abort'", "not run unasked"),
    wrong("a model that names code, submitted", SUBMIT, both(model(kind="deeplab", config=config_from(
          {"network": {"backbone": "os:abort"}}, "-").model_dump(mode="json"))), "'os:abort'", "not run unasked"),
    wrong("a CAM network, submitted", SUBMIT, model(), "a checkpoint of kind 'cam', not of a segmentation network"),
    wrong("no data for a model", "cpn.score model.safetensors --root nowhere", model(), "--root: nowhere is no folder",
          "with --root FOLDER"),
    wrong("data that are not packed", "cpn.score model.safetensors --root .", model(), "is not prepared", "run python"),
    wrong("a list that is not packed", f"{SCORE} --list test", model(), "list test is not packed", "--lists test"),
    wrong("a scale of zero", f"{SCORE} --scales 1 0", model(), "--scales: cam.scales.1", "greater than 0"),
    wrong("a scale twice", f"{SCORE} --scales 1 1", model(), "--scales: cam: scales names 1 twice"),
    wrong("a scale that is a word", f"{SCORE} --scales one", model(), "invalid float value: 'one'", usage=True),
    wrong("a setting without effect", f"{SCORE} --set cam.beta=0.5", model(), "--set cam.beta: has no effect"),
    wrong("--out of a score below a file", f"{SCORE} --out model.safetensors/x", model(), "--out: ", "choose another"),
]  # fmt: skip

PARALLEL = [
    Case(f"weights: layers of DataParallel, {name}", f"cpn.weights {name} --backbone scene", ("tensors fit",),
         make(lambda: {f"module.{layer}": value for layer, value in scene().items()}, name), code=0)
    for name, make in (("w.pth", torch_file), ("w.safetensors", tensors))
]  # fmt: skip

PREDICTED = [
    wrong("no model to predict with", "cpn.predict model.safetensors a.jpg", text_file(b"x", "a.jpg"),
          "model.safetensors: no such file; give the model"),
    wrong("a network of a stage between, predicted", f"{PREDICT} {PICTURE}", model(kind="affinity"),
          "a checkpoint of kind 'affinity'", "give model.safetensors of a run or of the stage deeplab"),
    wrong("a model that names code, predicted", f"{PREDICT} {PICTURE}", with_code("evil:make"), "'evil:make'",
          "--backbone evil:make"),
    wrong("a DeepLab to explain", "cpn.explain data/JPEGImages/2007_000032.jpg --model model.safetensors",
          model(kind="affinity"), "a checkpoint of kind 'affinity'"),
    wrong("an explanation of no picture", "cpn.explain a.jpg", text_file(b"x", "b.jpg"), "a.jpg: no such file"),
    wrong("a trial for a model to predict with", "cpn.predict small-0001 a.jpg", text_file(b"x", "a.jpg"),
          "small-0001: no such file; give the model.safetensors of a run"),
    wrong("the champion without a sweep", "cpn.predict @champion a.jpg", text_file(b"x", "a.jpg"),
          "@champion: names no sweep; write SWEEP@champion"),
    wrong("a folder to explain", "cpn.explain data", voc(), "data: is a folder; give one JPEG or PNG image"),
    wrong("the champion of no sweep", "cpn.predict small@champion a.jpg", text_file(b"x", "a.jpg"),
          "small@champion: sweeps/small/records/history.jsonl is not there", "run the sweep here"),
    wrong("no picture", f"{PREDICT} nowhere.jpg", model(), "nowhere.jpg: no such file or folder"),
    wrong("a folder without pictures", f"{PREDICT} data", model(), "data: holds no .jpg", "another folder"),
    wrong("two pictures of one name", f"{PREDICT} {PICTURE} data/SegmentationClass", model(),
          "2007_000032.jpg and data/SegmentationClass/2007_000032.png would both become 2007_000032.png"),
    wrong("a text for a picture", f"{PREDICT} a.jpg", both(model(), text_file("words", "a.jpg")),
          "a.jpg is no whole JPEG or PNG picture", "leave it out"),
    wrong("a picture that is cut off", f"{PREDICT} {PICTURE}",
          both(model(), lambda place: os.truncate(place / PICTURE, 500)), "is no whole JPEG or PNG picture"),
    wrong("predictions over other files", f"{PREDICT} {PICTURE} --out data/x", both(model(), text_file("x",
          "data/x")), "--out: data/x cannot be written", "choose another folder"),
    wrong("predictions among the pictures", f"{PREDICT} data/JPEGImages --out data/JPEGImages", model(),
          "--out data/JPEGImages: holds the images"),
    *(wrong(f"a {kind} for {name} of predictions", f"{PREDICT} {PICTURE} --out data", both(model(), make),
            f"--out: data/{name}", words)
      for kind, name, make, words in (
          ("file", "masks", text_file("x", "data/masks"), "cannot be written"),
          ("file", "overlays", text_file("x", "data/overlays"), "cannot be written"),
          ("folder", "overview.png", lambda place: (place / "data/overview.png").mkdir(), "is a folder; give the name"),
          ("folder", "predictions.json", lambda place: (place / "data/predictions.json").mkdir(), "is a folder"))),
    wrong("a label that is no class", f"{PREDICT} {PICTURE} --labels cta", model(), "--labels cta: is no class",
          "did you mean 'cat'?"),
    wrong("a probability of two", f"{PREDICT} {PICTURE} --threshold 2", model(), "--threshold 2", "give 0 to 1"),
    wrong("a threshold beside labels", f"{PREDICT} {PICTURE} --threshold .5 --labels cat", model(), "--threshold: has "
          "no effect beside --labels", "leave one out"),
    wrong("a model with a word for beta", f"{PREDICT} {PICTURE}", model(beta="high"), "says that its beta is high"),
    wrong("a model with true for beta", f"{PREDICT} {PICTURE}", model(beta=True), "says that its beta is True; give"),
    wrong("a model with a list for beta", f"{PREDICT} {PICTURE}", model(beta=[1]), "says that its beta is [1]"),
    wrong("a long side of nothing", f"{PREDICT} {PICTURE} --long-side 0", model(), "--long-side 0", "for example 768"),
    wrong("a beta above all", f"{PREDICT} {PICTURE} --beta 3", model(), "cam.beta", "less than or equal to 1.2"),
]  # fmt: skip


def ids_changed(new: str) -> Make:
    """A data set packed elsewhere, whose list says that an image is called `new`."""

    def make(place: Path) -> None:
        import pyarrow as pa
        from pyarrow import ipc

        model()(place)
        packed = place / "data" / "packed"
        path = packed / "train.index.arrow"
        with pa.memory_map(str(path)) as source:
            table = ipc.open_file(source).read_all()
        ids = [new, *table["id"].to_pylist()[1:]]
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table.set_column(0, "id", pa.array(ids)))
        manifest = read_json(packed / "manifest.json")
        manifest["lists"]["train"] |= {"index_bytes": path.stat().st_size, "index_sha256": file_digest(path)}
        write_json(packed / "manifest.json", manifest)

    return make


def manifest_changed(**changes: Any) -> Make:
    """A packed data set whose manifest says something else."""

    def make(place: Path) -> None:
        model()(place)
        path = place / "data" / "packed" / "manifest.json"
        write_json(path, read_json(path) | changes)

    return make


PACKS = [
    wrong("a packed id that leaves the folder", SCORE, ids_changed("../../x"), "train.index.arrow", "'../../x'",
          "cpn.prepare"),
    wrong("a packed id that is a path", SCORE, ids_changed("/etc/x"), "train.index.arrow", "'/etc/x'", "cpn.prepare"),
    wrong("a packed id that is nothing", SCORE, ids_changed(""), "train.index.arrow", "''", "cpn.prepare"),
    wrong("a pack of another version", SCORE, manifest_changed(format=99), "is of another version", "run"),
    wrong("a pack without lists", SCORE, manifest_changed(lists=None), "manifest.json", "damaged", "cpn.prepare"),
    wrong("a pack with a list outside", SCORE, manifest_changed(lists={"../../x": {"bytes": 1, "index_bytes": 1}}),
          "manifest.json", "damaged", "cpn.prepare"),
    wrong("a pack of no classes", SCORE, manifest_changed(classes="dog"), "manifest.json", "damaged", "cpn.prepare"),
    wrong("a pack whose file is cut off", SCORE,
          both(model(), lambda place: os.truncate(place / "data/packed/train.arrow", 100)), "train.arrow: is damaged",
          "cpn.prepare"),
]  # fmt: skip

CASES = [*FILES, *GIVEN, *CHECKPOINTS, *PARALLEL, *PREDICTED, *PACKS]
