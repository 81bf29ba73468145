"""The sections `random_walk`, how pseudo labels are propagated from CAMs and affinities, and `instance_masks`."""

from typing import Annotated, Literal

from pydantic import Field

from cpn.config.section import LARGEST_RADIUS, PositiveOrAuto, Section, whole_or_auto


class RandomWalkConfig(Section):
    """How pseudo labels are propagated from CAMs and affinities (method.md (h))."""

    kind: Literal["affinity", "irn"] = "affinity"
    """Where affinities come from: `affinity` = AffinityNet, which the paper names; `irn` = IRN, which its authors
    recommend. With `irn` no other value of this section but keep_if is read: section irn has its own.
    """
    alpha: PositiveOrAuto = 6.0
    """Exponent of the background score (1 - max)^alpha. `auto`: from the run's beta, then the best of those around it
    on the select images, where there are masks (cpn/propagation/walk_rule.py); the released 6 fits a beta of .22.
    """
    beta: float = Field(8.0, gt=0)
    """Exponent of the affinities; a larger one walks less across weak edges. Not the CAM's beta."""
    logt: Annotated[int | Literal["auto"], whole_or_auto(0, 16)] = 6
    """The walk takes 2^logt steps. `auto`: from the size of the maps, then as alpha."""
    radius: Annotated[int | Literal["auto"], whole_or_auto(2, LARGEST_RADIUS)] = 5
    """Pairs reach strictly less than this many stride cells. `auto`: 5, or less on small maps."""
    keep_if: Literal["always", "better"] = "always"
    """When propagated maps become the pseudo labels. `better`: unless they score below the CAM's masks at the run's
    beta on the select images; then the CAM's masks are the pseudo labels, and a line says so. Without masks nothing is
    compared, and the propagated maps are taken.
    """
    crf: bool = False
    """Refine the propagated scores by one CRF iteration; off in the released code."""


class InstanceMasksConfig(Section):
    """Refinement of pseudo labels by precomputed instance masks. Off by default: the network that made them has learnt
    from masks, which is more supervision than image labels.
    """

    folder: str | None = None
    """Folder with ID.json for every training image: masks as COCO run lengths; null: off."""
    share: float = Field(0.5, gt=0, le=1)
    """Smallest share of a mask's pixels that one class of the pseudo label must hold for the mask to take it."""


def extra_supervision(config: InstanceMasksConfig) -> str | None:
    """Return how results name it; None where it is off."""
    if config.folder is None:
        return None
    return f"with extra supervision: the instance masks of {config.folder} refine the pseudo labels that DeepLab learns"
