"""Pictures of a run as PNG bytes: beta curve, IoU by class, loss terms; masks over images.

Colours are Okabe and Ito's and viridis, which colour-blind people tell apart too. Pictures are 950 to 1000 pixels wide,
the size at which the MLflow UI shows them unscaled.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from cpn.data.voc import IGNORE, palette
from cpn.plots.panel import HEAT

DPI = 100
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8c8c8c"


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


def beta_curve(
    betas: NDArray[np.floating[Any]],
    miou: NDArray[np.floating[Any]],
    best: float,
    image_set: str,
    title: str = "",
    others: Mapping[str, NDArray[np.floating[Any]]] | None = None,
) -> bytes:
    """Draw mIoU over the background threshold beta; `miou` (N,) in [0, 1] at `betas` (N,), on `image_set`.

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
    """Draw mIoU over beta for several scales of one network: `curves` by scale, each (N,) in [0, 1] at `betas` (N,).

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
        label = axes.text(x + 0.8, place, text, va="center", fontsize=10, zorder=4)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # the line of the mean passes behind
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="y", visible=False)
    mean = float(np.nan_to_num(percent).mean())  # an absent class counts as 0, as in cpn.scoring.metrics.miou
    axes.axvline(mean, color=ORANGE, linewidth=1.6, linestyle="--", zorder=3)
    axes.text(mean, -0.68, f"mean {mean:.1f} %", color=ORANGE, ha="center", va="bottom", fontsize=10)
    axes.set_xlabel("IoU, %")
    axes.set_title(_titled(title, image_set), pad=20)
    return _png(figure)


def loss_terms(history: Sequence[Mapping[str, float]], image_set: str = "training images") -> bytes:
    """Return the epoch means of each loss term, one small plot each; `history` has one dict per epoch with `loss_*`
    keys. A term that is 0 in every epoch has no part in the training, and no plot.

    `epoch` is the x axis where it is there, else the position. A history without loss terms gives an empty plot.
    """
    terms = list(dict.fromkeys(key for entry in history for key in entry if key.startswith("loss_") and entry[key]))
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
        shown = [value for value in values if np.isfinite(value)]
        axes.set_ylim(bottom=min(0.0, *shown, 0.0), top=1.08 * max(shown) if shown and max(shown) > 0 else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (no unit)")
        _tidy(axes)
    return _png(figure)


_STYLES = ("--", ":", "-.")


def _titled(title: str, image_set: str) -> str:
    return f"{title} ({image_set})" if image_set else title


def _plot(height: float) -> tuple[Figure, Axes]:
    """Draw a figure 9.5 inches wide with one plot."""
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
