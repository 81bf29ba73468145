"""The images of a run's panel as its network sees them: maps, mask, complementary pair."""

import numpy as np

from cpn.config import Config
from cpn.config.patches import PatchesConfig
from cpn.data.image_memory import CAM_CURE, image_of
from cpn.data.loader import TrainingSamples
from cpn.data.map_files import present_classes
from cpn.data.voc import Split
from cpn.models.network import CPN
from cpn.plots.panel_choice import panel_choice
from cpn.plots.run_pictures import PanelImage, pseudo_mask, strongest
from cpn.scoring.cam import multi_scale_maps


def panel_images(network: CPN, scored: Split, config: Config, beta: float) -> list[PanelImage]:
    """Return the panel's images as the network sees them; it has to be in eval mode."""
    images = []
    for index, why in panel_choice(scored).items():
        with image_of(scored, index, CAM_CURE):
            images.append(PanelImage(scored.ids[index], why, panel_arrays(network, scored, index, config, beta)))
    return images


def panel_arrays(network: CPN, scored: Split, index: int, config: Config, beta: float) -> dict[str, np.ndarray]:
    """CAM and refined CAM (strongest present class), pseudo mask, and the CP pair of the first epoch."""
    image = scored.image(index)
    present = present_classes(scored.labels[index])
    arrays: dict[str, np.ndarray] = {}
    if config.train.objective in ("cpn", "pair_classification"):
        arrays |= complementary_views(scored, index, config)
    plain = config.cam.model_copy(update={"map": "plain"})
    arrays["CAM"] = strongest(multi_scale_maps(network, image, present, plain))
    maps = multi_scale_maps(network, image, present, config.cam)
    if config.cam.map == "refined":
        arrays["refined CAM"] = strongest(maps)
    return arrays | {"mask": pseudo_mask(maps, present, beta)}


def complementary_views(scored: Split, index: int, config: Config) -> dict[str, np.ndarray]:
    """Return the whole image as the first epoch would show it as I_h and I_hb if it lay upright in the crop, in its own
    colours: uint8 (h, w, 3) each, with a long side of `data.crop`, so that it can be compared with the maps.

    Hidden pixels are grey, or what `patches.hidden_value` fills them with.
    """
    # For a few pictures no maps are made.
    patches: PatchesConfig = config.patches.model_copy(update={"slic_on": "crop"})
    side = config.data.crop
    upright = {"long_side": (side, side), "flip": 0.0, "jitter": (0.0, 0.0, 0.0, 0.0)}
    samples = TrainingSamples(scored, config.data.model_copy(update=upright), patches, config.train.seed)
    sample = samples[(0, index)]
    rows, columns = (np.flatnonzero(sample.valid.any(axis=axis)) for axis in (1, 0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image, covered = sample.image[inside], sample.hidden[inside][..., None]
    lost: np.ndarray = np.full_like(image, 124) if sample.filling is None else sample.filling[inside]
    return {"I_h": np.where(covered, lost, image), "I_hb": np.where(covered, image, lost)}
