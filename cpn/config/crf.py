"""The section `crf`: the dense CRF and the two background scores that AffinityNet learns from."""

from pydantic import Field

from cpn.config.section import MOST_ITERATIONS, PositiveOrAuto, Section


class CrfConfig(Section):
    """The dense CRF, and the two background scores that AffinityNet learns from (method.md (g), (h))."""

    iterations: int = Field(10, ge=1, le=MOST_ITERATIONS)
    """Mean-field iterations."""
    sxy_gaussian: float = Field(3.0, gt=0)
    """Width in pixels of the smoothness kernel."""
    w_gaussian: float = Field(3.0, ge=0)
    """Weight of the smoothness kernel."""
    sxy_bilateral: float = Field(80.0, gt=0)
    """Width in pixels of the appearance kernel."""
    srgb_bilateral: float = Field(13.0, gt=0)
    """Width of the appearance kernel in grey levels (0 to 255) of each colour."""
    w_bilateral: float = Field(10.0, ge=0)
    """Weight of the appearance kernel."""
    alpha_low: PositiveOrAuto = 4.0
    """Exponent of the background score (1 - max)^alpha that trusts only strong foreground. `auto`: from the run's beta
    (cpn/propagation/walk_rule.py); the released 4 and 24 fit a beta of .22.
    """
    alpha_high: PositiveOrAuto = 24.0
    """Exponent of the background score (1 - max)^alpha that trusts only strong background. `auto` as alpha_low."""
