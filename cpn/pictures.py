"""Pictures of a run as PNG bytes: CAM panels, the beta curve, IoU by class, loss terms.

Masks have the VOC colours; heat maps are viridis and error colours are Okabe and Ito's, which colour-blind people tell
apart too. Panels are 1000 to 1100 pixels wide, the size at which the MLflow UI shows them unscaled.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from cpn.voc import IGNORE, palette

DPI = 100
HEAT = "viridis"
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8c8c8c"

ERRORS: dict[str, tuple[int, int, int]] = {
    "right": (178, 178, 178),
    "background": (38, 38, 38),
    "object missed": (86, 180, 233),
    "object invented": (213, 94, 0),
    "wrong class": (240, 228, 66),
    "ignored": (255, 255, 255),
}
"""Colours of `error_map`: object pixels of the right class, background rightly left alone, and the kinds of error."""


class PanelRow(NamedTuple):
    """One image of a panel.

    `image` is uint8 (H, W, 3); `truth` uint8 (H, W) with IGNORE, or None. `columns` maps a head to an array: float
    (H, W) in [0, 1] is shown as heat, uint8 (H, W) as a mask, uint8 (H, W, 3) as it is. Sizes may differ.
    """

    id: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    columns: Mapping[str, NDArray[Any]]


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8], strength: float = 0.55) -> NDArray[np.uint8]:
    """Lay a mask's colours over an image: uint8 (H, W, 3) and (H, W) -> (H, W, 3). Background and IGNORE stay clear."""
    colours = palette()[mask].astype(np.float32)
    covered = ((mask != 0) & (mask != IGNORE))[..., None]
    mixed = (1 - strength) * image.astype(np.float32) + strength * colours
    result: NDArray[np.uint8] = np.where(covered, np.rint(mixed), image).astype(np.uint8)
    return result


def picture_png(image: NDArray[np.uint8]) -> bytes:
    """uint8 RGB (H, W, 3) as PNG of just these pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def error_map(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a mask gets wrong: two uint8 (H, W) masks -> uint8 RGB (H, W, 3) in the colours of ERRORS."""
    kinds = np.full(truth.shape, "wrong class", dtype=object)
    kinds[prediction == truth] = "right"
    kinds[(prediction == 0) & (truth == 0)] = "background"
    kinds[(prediction == 0) & (truth != 0)] = "object missed"
    kinds[(prediction != 0) & (truth == 0)] = "object invented"
    kinds[truth == IGNORE] = "ignored"
    picture = np.zeros((*truth.shape, 3), np.uint8)
    for kind, colour in ERRORS.items():
        picture[kinds == kind] = colour
    return picture


def cam_panel(rows: Sequence[PanelRow], names: Sequence[str] | None = None, title: str = "") -> bytes:
    """One row per image: image, truth, then the columns of all rows in the order of their first appearance.

    `names` are the class names from background on, for the legend of the mask colours. A legend of ERRORS is added
    if a column's head begins with "error". A cell without its array stays empty. ValueError without rows.
    """
    if not rows:
        raise ValueError("a panel needs at least one row")
    with_truth = any(row.truth is not None for row in rows)
    heads = ["image", *(["truth"] if with_truth else []), *dict.fromkeys(head for row in rows for head in row.columns)]
    cells = [{"image": row.image, "truth": row.truth, **row.columns} for row in rows]
    width, left, gap = 10.8, 0.3, 0.05
    side = min(2.2, (width - left) / len(heads) - gap)
    left += (width - left - len(heads) * (side + gap)) / 2
    heights = [min(2.0, row.image.shape[0] / row.image.shape[1]) * side + gap for row in rows]
    longest = max(len(_wrapped(head, side)) for head in heads)
    above = 0.1 + 0.17 * longest + (0.32 if title else 0.0)
    legends = [keys[start : start + _KEYS_PER_LINE]
               for keys in (_class_keys(rows, names), _error_keys(heads))
               for start in range(0, len(keys), _KEYS_PER_LINE)]  # fmt: skip
    heat = any(_is_heat(array) for row in rows for array in row.columns.values())
    below = 0.08 + (0.34 if heat else 0.0) + 0.22 * len(legends)
    height = above + sum(heights) + below
    figure = Figure(figsize=(width, height), dpi=DPI)
    if title:
        figure.text(0.5, 1 - 0.06 / height, title, ha="center", va="top", fontsize=12)
    top = height - above
    for row, row_cells, row_height in zip(rows, cells, heights, strict=True):
        top -= row_height
        middle = (top + row_height / 2) / height
        name = _short(row.id, row_height)
        figure.text((left - 0.18) / width, middle, name, rotation=90, ha="center", va="center", fontsize=8)
        for column, head in enumerate(heads):
            x = left + column * (side + gap)
            axes = figure.add_axes((x / width, top / height, side / width, (row_height - gap) / height))
            axes.set_axis_off()
            _show(axes, row_cells.get(head))
    for column, head in enumerate(heads):
        x = left + column * (side + gap) + side / 2
        for line, text in enumerate(reversed(_wrapped(head, side))):
            y = height - above + 0.07 + 0.16 * line
            figure.text(x / width, y / height, text, ha="center", va="baseline", fontsize=9)
    if heat:
        axes = figure.add_axes((0.35, (below - 0.2) / height, 0.3, 0.09 / height))
        axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=HEAT, extent=(0.0, 1.0, 0.0, 1.0))
        axes.set_yticks([])
        axes.set_xticks([0, 0.5, 1])
        axes.tick_params(labelsize=8, pad=1, length=2)
        figure.text(0.34, (below - 0.16) / height, "normalised class score", ha="right", va="center", fontsize=8)
    for line, keys in enumerate(reversed(legends)):
        figure.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, (0.04 + 0.22 * line) / height), fontsize=8,
                      ncols=len(keys), frameon=False, borderaxespad=0, borderpad=0, handlelength=1.2, handleheight=1.0,
                      columnspacing=1.4)  # fmt: skip
    return _png(figure)


def beta_curve(
    betas: NDArray[np.floating[Any]],
    miou: NDArray[np.floating[Any]],
    best: float,
    image_set: str,
    title: str = "",
    others: Mapping[str, NDArray[np.floating[Any]]] | None = None,
) -> bytes:
    """mIoU over the background threshold beta; `miou` (N,) in [0, 1] at `betas` (N,), on `image_set`.

    `best` is the beta that is marked; `others` are further curves by name, drawn thinner. Its own curve is then
    labelled "this run".
    """
    figure, axes = _plot(6.2)
    for (name, curve), style in zip((others or {}).items(), _STYLES, strict=False):
        axes.plot(betas, 100 * curve, style, color=GREY, linewidth=1.3, label=name)
    axes.plot(betas, 100 * miou, color=BLUE, linewidth=2.2, label="this run")
    peak = 100 * float(miou[int(np.argmin(np.abs(betas - best)))])
    axes.plot([best], [peak], "o", color=ORANGE, markersize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))
    right = best > float(np.mean(betas))
    axes.annotate(f"beta {best:.2f}: {peak:.1f} %", (best, peak), xytext=(-6 if right else 6, 9), fontsize=11,
                  textcoords="offset points", ha="right" if right else "left", color=ORANGE)  # fmt: skip
    axes.set_xlabel("background threshold beta, on maps in [0, 1]")
    axes.set_ylabel("mIoU, %")
    axes.set_title(_titled(title or "mIoU over beta", image_set))
    if others:
        axes.legend(frameon=False)
    return _png(figure)


def scale_curves(
    betas: NDArray[np.floating[Any]], curves: Mapping[str, NDArray[np.floating[Any]]], image_set: str
) -> bytes:
    """mIoU over beta for several scales of one network: `curves` by scale, each (N,) in [0, 1] at `betas` (N,).

    The last one, of all scales where there are several, is drawn thick; each has a dot at its best beta. The upper
    axis is t = beta / 2, the threshold on halved maps.
    """
    figure, axes = _plot(6.2)
    *singles, last = curves
    for place, name in enumerate([*singles, last]):
        curve = 100 * curves[name]
        best = int(curve.argmax())
        colour = BLUE if name == last else colormaps[HEAT](0.15 + 0.75 * place / max(1, len(singles)))
        label = f"{name}: {curve[best]:.1f} % at beta {betas[best]:.2f}"
        axes.plot(betas, curve, color=colour, linewidth=2.6 if name == last else 1.5, label=label)
        axes.plot([betas[best]], [curve[best]], "o", color=ORANGE if name == last else colour, markersize=7)
    axes.set_xlabel("background threshold beta, on maps in [0, 1]")
    axes.set_ylabel("mIoU, %")
    axes.set_title(_titled("mIoU over beta by scale", image_set), pad=14)
    halves = axes.secondary_xaxis("top", functions=(lambda beta: np.asarray(beta) / 2, lambda t: 2 * np.asarray(t)))
    halves.set_xlabel("t, on halved maps", fontsize=10)
    axes.legend(title="scale", frameon=False)
    return _png(figure)


def class_iou(
    names: Sequence[str], iou: NDArray[np.floating[Any]], image_set: str = "", title: str = "IoU by class"
) -> bytes:
    """IoU of each class as bars, with their mean; `iou` (C,) in [0, 1] in the order of `names`, NaN = class absent."""
    percent = 100 * np.asarray(iou, np.float64)
    figure, axes = _plot(1.4 + 0.3 * len(names))
    places = range(len(names))
    axes.barh(places, np.nan_to_num(percent), color=[GREY if name == "background" else BLUE for name in names])
    for place, value in zip(places, percent, strict=True):
        text, x = (f"{value:.1f}", value) if np.isfinite(value) else ("not in these images", 0.0)
        axes.text(x + 0.8, place, text, va="center", fontsize=10)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="y", visible=False)
    mean = float(np.nan_to_num(percent).mean())  # an absent class counts as 0, as in cpn.metrics.miou
    axes.axvline(mean, color=ORANGE, linewidth=1.6, linestyle="--", zorder=3)
    axes.text(mean, -0.68, f"mean {mean:.1f} %", color=ORANGE, ha="center", va="bottom", fontsize=10)
    axes.set_xlabel("IoU, %")
    axes.set_title(_titled(title, image_set), pad=20)
    return _png(figure)


def loss_terms(history: Sequence[Mapping[str, float]], image_set: str = "training images") -> bytes:
    """The epoch means of each loss term, one small plot each; `history` has one dict per epoch with `loss_*` keys.

    `epoch` is the x axis where it is there, else the position. A history without loss terms gives an empty plot.
    """
    terms = list(dict.fromkeys(key for entry in history for key in entry if key.startswith("loss_")))
    epochs = [entry.get("epoch", place + 1) for place, entry in enumerate(history)]
    columns = max(1, min(3, len(terms)))
    lines = max(1, -(-len(terms) // columns))
    figure = Figure(figsize=(10, 0.9 + 2.3 * lines), dpi=DPI, layout="constrained")
    figure.suptitle(_titled("Loss terms, mean of each epoch", image_set), fontsize=13)
    for place, term in enumerate(terms or [""]):
        axes = figure.add_subplot(lines, columns, place + 1)
        values = [entry.get(term, float("nan")) for entry in history]
        total = term == "loss_total"
        axes.plot(epochs, values, "-o", markersize=3, color=ORANGE if total else BLUE, linewidth=1.8)
        axes.set_title(term.removeprefix("loss_") or "no loss terms were recorded", fontsize=11)
        axes.set_ylim(bottom=min(0.0, *(v for v in values if np.isfinite(v)), 0.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (no unit)")
        _tidy(axes)
    return _png(figure)


_STYLES = ("--", ":", "-.")
_KEYS_PER_LINE = 8


def _is_heat(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and np.issubdtype(array.dtype, np.floating)


def _show(axes: Axes, array: NDArray[Any] | None) -> None:
    """Draw a cell: heat, mask or RGB. Small pictures keep their pixels, none is blurred."""
    if array is None:
        axes.text(0.5, 0.5, "none", ha="center", va="center", fontsize=8, color=GREY)
        return
    if _is_heat(array):
        array = (255 * colormaps[HEAT](np.clip(array, 0, 1))[..., :3]).astype(np.uint8)
    elif array.ndim == 2:
        array = palette()[array]
    axes.imshow(array, interpolation="nearest" if max(array.shape[:2]) < 150 else "antialiased")


def _class_keys(rows: Sequence[PanelRow], names: Sequence[str] | None) -> list[Patch]:
    """Keys for the classes that the panel's masks hold; none if their names are unknown."""
    if names is None:
        return []
    masks = [mask for row in rows for mask in (row.truth, *row.columns.values())
             if mask is not None and mask.ndim == 2 and not _is_heat(mask)]  # fmt: skip
    seen = sorted({int(value) for mask in masks for value in np.unique(mask)})
    keys = [_key(names[value], palette()[value]) for value in seen if value < len(names)]
    return keys + ([_key("ignored", palette()[IGNORE])] if IGNORE in seen else [])


def _error_keys(heads: Sequence[str]) -> list[Patch]:
    """Keys for ERRORS if a column shows them."""
    if not any(head.startswith("error") for head in heads):
        return []
    nothing = Patch(alpha=0, label="errors:")
    return [nothing, *(_key(kind, np.array(colour)) for kind, colour in ERRORS.items())]


def _key(label: str, colour: NDArray[Any]) -> Patch:
    red, green, blue = (float(value) / 255 for value in colour)
    return Patch(facecolor=(red, green, blue), edgecolor=GREY, linewidth=0.5, label=label)


def _wrapped(text: str, width: float) -> list[str]:
    """A column's head in lines that fit `width` inches, broken at blanks."""
    room = max(6, int(width / 0.075))
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _short(text: str, height: float) -> str:
    """An image id cut to what fits the row's height, in inches; the end tells ids apart."""
    room = max(4, int(height / 0.07))
    return text if len(text) <= room else "…" + text[1 - room :]


def _titled(title: str, image_set: str) -> str:
    return f"{title} ({image_set})" if image_set else title


def _plot(height: float) -> tuple[Figure, Axes]:
    """A figure 9.5 inches wide with one plot."""
    figure = Figure(figsize=(9.5, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _tidy(axes)
    axes.tick_params(labelsize=10)
    axes.xaxis.label.set_fontsize(11)
    axes.yaxis.label.set_fontsize(11)
    axes.title.set_fontsize(13)
    return figure, axes


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e2e2e2", linewidth=0.8)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    """Draw without any display or global state. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
