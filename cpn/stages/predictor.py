"""What a trained network makes of any image, from Python; `cpn/predict.py` is the command.

    from cpn.stages.predictor import load
    model = load("model.safetensors")
    mask = model("cat.jpg")

The network is a run's CAM network or a DeepLab. Masks have the image's own size, whatever it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cpn.config import Config, nearest, with_values
from cpn.config.deeplab import decided
from cpn.core.errors import InputError
from cpn.data.image_memory import working_on
from cpn.data.transforms import normalise, resize, scaled_size
from cpn.models.checkpoint import read_metadata
from cpn.models.network import CPN
from cpn.plots.run_pictures import pseudo_mask
from cpn.propagation.crf import dense_crf
from cpn.run import load_run
from cpn.scoring.cam import multi_scale_maps, shown_size
from cpn.segmentation.deeplab import DeepLab, predict_label
from cpn.sources.voc_folder import decode_whole
from cpn.stages.pipeline import load_deeplab

SMALLER = "lower --long-side, or give fewer --scales, --no-flip or --no-crf"
"""The cure where memory does not suffice: options of the command; `load` takes the same by name."""
THRESHOLD = 0.5
"""Probability from which a CAM network's classifier says that a class is there."""

Picture = str | Path | bytes | NDArray[np.uint8]
"""A file, the bytes of one, or RGB uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Predictor:
    """A trained network and how it is read."""

    network: CPN | DeepLab
    config: Config
    """The checkpoint's, with what was changed at `load`."""
    classes: tuple[str, ...]
    """The F foreground classes; mask value = position + 1, background = 0."""
    crf: bool
    """Whether the dense CRF has the last word: `deeplab.crf` of a DeepLab, `crf` of a CAM network."""
    beta: float | None
    """A CAM network's background score; None for a DeepLab."""
    threshold: float
    """Probability from which a class counts as present where nobody says which are; read by a CAM network only."""
    long_side: int
    """Pixels of the longer side above which an image is shown smaller, and its mask enlarged."""

    @property
    def kind(self) -> str:
        """`cam` or `deeplab`."""
        return "deeplab" if isinstance(self.network, DeepLab) else "cam"

    @property
    def scales(self) -> tuple[float, ...]:
        """The image scales that are taken together."""
        return decided(self.config.deeplab.scales) if self.kind == "deeplab" else self.config.cam.scales

    @property
    def flip(self) -> bool:
        """Whether the mirrored image is taken as well."""
        return self.config.deeplab.test_flip if self.kind == "deeplab" else self.config.cam.flip

    def __call__(self, picture: Picture, labels: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """Return the mask of one image, class indices uint8 (H, W).

        A CAM network needs to know which classes are there: `labels` names them, otherwise its own classifier says
        (`labels_of`); a DeepLab has no use for either. Raises InputError for what is no image, or no class.
        """
        image = as_image(picture)
        shown = self.shown(image)
        name = str(picture) if isinstance(picture, (str, Path)) else "the image"
        with working_on(name, shown.shape[0], shown.shape[1], SMALLER):
            mask = self._mask(shown, labels)
        if mask.shape == image.shape[:2]:
            return mask
        return np.array(Image.fromarray(mask).resize(image.shape[1::-1], Image.Resampling.NEAREST))

    @torch.no_grad()
    def labels_of(self, picture: Picture) -> dict[str, float]:
        """Return the class -> probability that it is in the image, by a CAM network's classifier at scale 1.

        The sigmoid of the spatial mean of Y_c, the score that L_cls (Eq. 13) trains. InputError for a DeepLab.
        """
        if not isinstance(self.network, CPN):
            raise InputError("labels are told by a CAM network's classifier; a DeepLab has none")
        device = next(self.network.parameters()).device
        image = self.shown(as_image(picture))
        image = resize(image, shown_size(self.network, image, 1.0, self.config.cam))
        pixels = torch.from_numpy(image[None].copy()).to(device, non_blocking=True)
        scores = self.network(normalise(pixels, None)).cam[0, 1:].float().mean(dim=(1, 2)).sigmoid()
        return dict(zip(self.classes, scores.tolist(), strict=True))

    def shown(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image as the network sees it."""
        height, width = image.shape[:2]
        return resize(image, scaled_size(height, width, min(self.long_side, max(height, width))))

    def _mask(self, image: NDArray[np.uint8], labels: Sequence[str] | None) -> NDArray[np.uint8]:
        if isinstance(self.network, DeepLab):
            return predict_label(self.network, image, self.config.deeplab, self.crf)
        if labels is None:
            labels = [name for name, score in self.labels_of(image).items() if score >= self.threshold]
        present = np.array(sorted({self.index(name) for name in labels}), np.int64)
        maps = multi_scale_maps(self.network, image, present, self.config.cam)
        assert self.beta is not None
        if not self.crf or not len(present):
            return pseudo_mask(maps, present, self.beta)
        background = np.full((1, *maps.shape[1:]), self.beta, np.float32)
        refined = dense_crf(image, np.concatenate([background, maps]), self.config.crf)
        chosen: NDArray[np.uint8] = np.concatenate([[0], present]).astype(np.uint8)[refined.argmax(axis=0)]
        return chosen

    def index(self, name: str) -> int:
        """Return the mask value of a class. Raises InputError for a name that the network was not trained on."""
        if name not in self.classes:
            near = nearest(name, self.classes)
            raise InputError(f"--labels {name}: is no class of this network{near}; it has {', '.join(self.classes)}")
        return self.classes.index(name) + 1


def as_image(picture: Picture) -> NDArray[np.uint8]:
    """RGB, uint8 (H, W, 3), of a file, its bytes, or an array that is so already; as training reads images.

    Grey, palette and CMYK images become RGB; the orientation in EXIF is ignored, so that the mask fits the stored
    pixels. Raises InputError for anything else.
    """
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
            raise InputError(f"an array of {picture.dtype} {picture.shape} is no image: give RGB, uint8 (H, W, 3)")
        return picture
    if isinstance(picture, bytes):
        return decode_whole("an image", picture, "give the bytes of another")
    try:
        data = Path(picture).read_bytes()
    except OSError as error:
        raise InputError(f"{picture} cannot be read ({error.strerror}): give JPEG or PNG files, or folders") from error
    return decode_whole(picture, data, "get the file again or leave it out")


def load(
    checkpoint: str | Path,
    *,
    backbone: str | None = None,
    device: str | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    crf: bool | None = None,
    beta: float | None = None,
    threshold: float = THRESHOLD,
    long_side: int | None = None,
) -> Predictor:
    """Read a CAM network or a DeepLab from its model.safetensors. What is None is as the checkpoint says.

    `crf`: with it for a DeepLab, without for a CAM network. `beta`: the best one of the run, else `cam.beta`.
    `long_side`: the largest that training showed, `data.long_side`. `backbone` allows code that the checkpoint names
    as its backbone; `device` is the GPU where there is one. Raises InputError for another file or a value that no
    network of its kind has.
    """
    path = Path(checkpoint)
    metadata = read_metadata(path)
    if metadata.get("kind") not in ("cam", "deeplab"):
        raise InputError(
            f"{path}: a checkpoint of kind {str(metadata.get('kind'))[:40]!r}; give model.safetensors of a run or of "
            "the stage deeplab"
        )
    network: CPN | DeepLab
    deeplab = metadata["kind"] == "deeplab"
    network, config, classes = load_deeplab(path, backbone) if deeplab else load_run(path, backbone)
    if deeplab and beta is not None:
        raise InputError(f"--beta: {path} is a DeepLab, which has no background score; leave it out")
    names = ("deeplab.scales", "deeplab.test_flip", "") if deeplab else ("cam.scales", "cam.flip", "cam.beta")
    overrides: tuple[Any, ...] = (None if scales is None else list(scales), flip, beta)
    changed = {name: value for name, value in zip(names, overrides, strict=True) if value is not None}
    config = with_values(config, changed, f"{path}, changed")
    if beta is None and not deeplab:
        recorded = metadata.get("beta")
        if recorded is not None and (type(recorded) not in (int, float) or not 0 <= recorded <= 1.2):
            raise InputError(f"{path}: says that its beta is {str(recorded)[:40]}; give --beta")
        beta = config.cam.beta if recorded is None else float(recorded)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(
        network.to(torch.device(place)).eval(),
        config,
        classes,
        crf=deeplab if crf is None else crf,
        beta=beta,
        threshold=threshold,
        long_side=long_side or config.data.long_side[1],
    )
