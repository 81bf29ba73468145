"""Presets by name: what `preset: [official, scenes]` in a configuration stands for.

A preset is a nested dict of the values in which it differs from what stands before it; later presets and the file's
own values override earlier ones. `official` is empty, because the defaults of the sections are the released code's.
"""

from typing import Any

OFFICIAL: dict[str, Any] = {}

# The paper's letter where it differs from the released code (method.md (k)).
PAPER: dict[str, Any] = {
    "patches": {"draw": "bernoulli"},
    "network": {"prcm_transposed": True},
    "train": {"sgd_momentum": 0.9},
    "loss": {
        "amp_weight": 0.0,
        "onehot_target": False,
        "ohem_scope": "batch",
        "background": "before_lambda",
        "norm": "max",
    },
}

# Small network, small images; docs/scenes.md says what differs in the losses and which measurement asked for it.
SCENES: dict[str, Any] = {
    "data": {
        "root": None,
        "scenes": {},
        "crop": 64,
        "long_side": [56, 80],
        "jitter": [0.2, 0.2, 0.2, 0.05],
        "workers": 0,
    },
    "patches": {"S_N": 40, "K": [8, 16]},
    "network": {
        "backbone": "scene",
        "weights": "scenes",
        "stage3_channels": 16,
        "stage4_channels": 32,
        "correlation_channels": 48,
        "prcm": False,
    },
    "loss": {"amp_weight": 0.0, "normalise_refined": False, "ramp": 0.3},
    # A slow backbone under a fast classifier: at 1e-3 and x10 the spread over seeds drowned every difference.
    "train": {"optimizer": "adamw", "lr": 0.0001, "head_lr_factor": 100.0, "batch_size": 8, "epochs": 6},
    "cam": {"scales": [1.0, 2.0], "beta": 0.5},
    "crf": {"sxy_bilateral": 15.0, "alpha_low": 0.7, "alpha_high": 3.0},
    "affinity": {"radius": 3, "widths": [16, 32, 48], "optimizer": "adamw", "lr": 0.001},
    "random_walk": {"radius": 3, "alpha": 0.7, "logt": 4},
    "irn": {
        "fg_threshold": 0.7,
        "bg_threshold": 0.4,
        "crf": {"sxy_bilateral": 15.0},
        "radius": 5,
        "displacement": False,
        "epochs": 8,
        "batch_size": 8,
        "crop": 64,
        "scale": [0.75, 1.25],
        "optimizer": "adamw",
        "lr": 0.005,
        "walk_radius": 3,
        "walk_logt": 2,
        "walk_threshold": 0.4,
    },
    "deeplab": {
        "width": 64,
        "dilation": 3,
        "iterations": 300,
        "batch_size": 8,
        "optimizer": "adamw",
        "bn_momentum": 0.1,
        "scales": [1.0, 1.5],
        "crf": {"sxy_bilateral": 15.0},
    },
}

# Photographs on a laptop's CPU, from ImageNet features: a few hundred images in minutes. docs/own_data.md says which
# measurement chose a value. Sizes are of the crop and of `cam.long_side`, not of the images.
PHOTOS: dict[str, Any] = {
    "data": {"crop": 209, "long_side": [209, 305]},
    "patches": {"kind": "grid", "draw": "bernoulli", "S_N": 60, "K": [28, 56]},
    "network": {
        "backbone": "efficientnet_lite0",
        "weights": "imagenet",
        "prcm": False,
        "prcm_transposed": True,
        "x_scale": "unit",
        "x_image": 0.3,
        "prcm_scale": 0.03,
    },
    # Min-max on refined maps rewards a flat map: trained with it, the refinement is worse than untrained.
    "loss": {"normalise_refined": False, "amp_weight": 0.0},
    "train": {"optimizer": "adamw", "lr": 0.0002, "batch_size": 8, "epochs": 4, "epoch_images": 360},
    "cam": {"beta": 0.88, "epoch_images": 60, "long_side": 321, "scales": [0.75, 1.25], "sizes": "aligned"},
    "crf": {"alpha_low": "auto", "alpha_high": "auto"},
    "affinity": {"optimizer": "adamw", "lr": 0.0001, "epochs": 4},
    # IRN's edges on ImageNet features, whatever the CAM's backbone: its walk gains three times what AffinityNet's does.
    "irn": {
        "backbone": "efficientnet_lite0",
        "weights": "imagenet",
        "map_power": "auto",
        "displacement": False,
        "epochs": 4,
        "batch_size": 8,
        "crop": 257,
        "scale": [0.75, 1.25],
        "optimizer": "adamw",
        "lr": 0.003,
        "walk_beta": 5.0,
        "walk_logt": 6,
        "walk_threshold": 0.4,
    },
    "random_walk": {"kind": "irn", "alpha": "auto", "logt": "auto", "radius": "auto", "keep_if": "better"},
    "deeplab": {"schedule": "by_images", "sizes": "aligned", "width": 256, "test_flip": False},
}

CAM_BASELINE: dict[str, Any] = {
    "train": {"objective": "classification"},
    "network": {"pcm": False, "prcm": False},
    "cam": {"map": "plain", "beta": 0.44},
}

# SEAM's maps are read on a curve that ends at .59; the one its users print for the released weights peaks at .23.
SEAM: dict[str, Any] = {
    "train": {"objective": "seam", "batch_size": 8},
    "network": {"pcm": True, "prcm": False},
    "cam": {"map": "refined", "beta": 0.24},
}

CPN: dict[str, Any] = {"train": {"objective": "cpn"}, "cam": {"map": "refined"}}

PRESETS: dict[str, dict[str, Any]] = {
    "official": OFFICIAL,
    "paper": PAPER,
    "scenes": SCENES,
    "photos": PHOTOS,
    "cam_baseline": CAM_BASELINE,
    "seam": SEAM,
    "seam_prcm": {**SEAM, "network": {"pcm": True, "prcm": True}},
    "cpn_superpixel": {**CPN, "patches": {"kind": "superpixel"}},
    "cpn_grid": {**CPN, "patches": {"kind": "grid"}},
    # Table 2 of the paper, row by row.
    "table2_row1": CAM_BASELINE,
    "table2_row2": {**CPN, "network": {"prcm": False}, "loss": {"w_cpcr": 0.0}},
    "table2_row3": {**CPN, "network": {"prcm": False}, "loss": {"ohem_ratio": None}},
    "table2_row4": {**CPN, "network": {"prcm": False}, "loss": {"ohem_ratio": 0.2}},
    "table2_row5": {**CPN, "network": {"prcm": True}, "loss": {"ohem_ratio": 0.2}},
    # Controls: what classifying the hidden pair alone brings, and what an untrained PCM alone brings.
    "control_pair": {**CAM_BASELINE, "train": {"objective": "pair_classification"}},
    "control_pcm": {
        **CAM_BASELINE,
        "network": {"pcm": True, "prcm": False},
        "cam": {"map": "refined", "beta": 0.56},
    },
}
