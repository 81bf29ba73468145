"""Dense CRF (Kraehenbuehl and Koltun 2011) on class scores, on the labels present only. The only user of pydensecrf.

It holds the interpreter lock while it works: spread images over processes, not threads.
"""

import numpy as np
import pydensecrf.densecrf as densecrf
from numpy.typing import NDArray

from cpn.config.crf import CrfConfig

SMALLEST_PROBABILITY = 1e-5
"""Scores are clipped to [this, 1] before their logarithm is taken, as in the released code."""


def dense_crf(image: NDArray[np.uint8], probabilities: NDArray[np.float32], config: CrfConfig) -> NDArray[np.float32]:
    """Refine scores by mean field: uint8 (H, W, 3) RGB, (K, H, W) in [0, 1] -> float32 (K, H, W), sums to 1 over K.

    K are the labels present: leaving absent ones out, as the released code does, gives the same argmax in less time,
    but where two labels are even (`python -m benchmarks crf_pool`: a pixel in 500,000). Scores need not sum to 1.
    With a single label nothing can change and the scores come back as they are. Raises ValueError on unfit shapes.
    """
    labels, height, width = probabilities.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8 or labels == 0:
        raise ValueError(f"image {image.shape} {image.dtype} does not fit scores {probabilities.shape}")
    if labels == 1:
        return probabilities.astype(np.float32)
    energy = -np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1.0)).astype(np.float32)
    crf = densecrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(labels, -1)))
    crf.addPairwiseGaussian(sxy=config.sxy_gaussian, compat=config.w_gaussian)
    crf.addPairwiseBilateral(
        sxy=config.sxy_bilateral,
        srgb=config.srgb_bilateral,
        rgbim=np.ascontiguousarray(image),
        compat=config.w_bilateral,
    )
    refined = np.array(crf.inference(config.iterations), dtype=np.float32)
    return refined.reshape(labels, height, width)


def refine_label(image: NDArray[np.uint8], probabilities: NDArray[np.float32], config: CrfConfig) -> NDArray[np.uint8]:
    """Class of each pixel after the CRF: uint8 (H, W, 3), (C, H, W) -> uint8 (H, W).

    Classes that nowhere reach half the chance level 1/C take no part: the CRF costs as much as it has labels.
    """
    present = np.flatnonzero(probabilities.max(axis=(1, 2)) >= 0.5 / len(probabilities))
    refined = dense_crf(image, probabilities[present], config)
    label: NDArray[np.uint8] = present.astype(np.uint8)[refined.argmax(axis=0)]
    return label


def with_background(maps: NDArray[np.float32], alpha: float) -> NDArray[np.float32]:
    """[(1 - max)^alpha, maps], CPN Eq. (16): un-halved maps (P, H, W) in [0, 1] -> float32 (P + 1, H, W)."""
    background = (1 - np.max(maps, axis=0, initial=0.0)) ** alpha
    return np.concatenate([background[None], maps]).astype(np.float32)


def crf_scores(
    image: NDArray[np.uint8], maps: NDArray[np.float32], alpha: float, config: CrfConfig
) -> NDArray[np.float32]:
    """CRF of [(1 - max)^alpha, maps]: uint8 (H, W, 3), un-halved (P, H, W) -> float32 (P + 1, H, W), background first.

    With alpha_low and alpha_high in turn these are the scores that AffinityNet's labels are made of (method.md (h)).
    """
    return dense_crf(image, with_background(maps, alpha), config)
