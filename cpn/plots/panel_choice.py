"""Which images a panel shows: the same in every run on the same data, chosen by their masks and by no network.

Which image is easiest or hardest for a network is unknown before the first run has ended. The masks are known:
CAM networks do well on large objects, and worst on small ones and on thin or ragged ones.
"""

import numpy as np

from cpn.data.voc import IGNORE, Split

WITHOUT_MASKS = 5


def panel_choice(scored: Split) -> dict[int, str]:
    """Choose up to five images for the panel, in its order: index -> why it is shown.

    With masks: the object share at its 90 %, 50 % and 10 % quantile, the most ragged outline (90 %), the most classes.
    Without: spread over the number of classes and the list.
    """
    if not scored.masked:
        order = sorted(range(len(scored)), key=lambda i: (int(np.nan_to_num(scored.labels[i]).sum()), scored.ids[i]))
        places = np.linspace(0, len(order) - 1, min(WITHOUT_MASKS, len(order)))
        return {order[round(place)]: "" for place in places}
    share, ragged, classes = (np.array(values) for values in zip(*map(mask_facts, masks_of(scored)), strict=True))
    reasons: dict[int, str] = {}
    for why, values, quantile in (
        ("large object", share, 0.9),
        ("middling object", share, 0.5),
        ("thin or ragged", ragged, 0.9),
        ("small object", share, 0.1),
        ("several classes", classes + share, 1.0),
    ):
        order = sorted(
            np.flatnonzero(share > 0).tolist() or range(len(scored)), key=lambda i: (values[i], scored.ids[i])
        )
        wanted = round(quantile * (len(order) - 1))
        free = [place for place, index in enumerate(order) if index not in reasons]
        if free:
            reasons[order[min(free, key=lambda place: abs(place - wanted))]] = why
    return reasons


def masks_of(scored: Split) -> list[np.ndarray]:
    """Return all masks of a list that has them."""
    return [mask for index in range(len(scored)) if (mask := scored.mask(index)) is not None]


def mask_facts(mask: np.ndarray) -> tuple[float, float, int]:
    """Of a mask uint8 (H, W): the objects' share of the labelled pixels, their outline by the square root of their
    area (a disc has 4.5 or so), and how many classes there are.
    """
    objects = (mask != 0) & (mask != IGNORE)
    area = int(objects.sum())
    outline = int((objects[1:] != objects[:-1]).sum() + (objects[:, 1:] != objects[:, :-1]).sum())
    share = area / max(1, int((mask != IGNORE).sum()))
    return share, outline / max(1.0, area) ** 0.5, len(np.unique(mask[objects]))
