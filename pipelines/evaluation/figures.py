"""Pictures of an evaluation: its curves, and its confusion matrix, each as a PNG."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.evaluation.calibration import BINS, reliability
from pipelines.evaluation.confusion import BACKGROUND, IOU, Pairs, confusion_matrix
from pipelines.evaluation.curves import (
    RECALLS,
    Curves,
    Floats,
    best_point,
    operating_points,
    overall,
)

# Okabe and Ito's, which those who see red and green alike tell apart; their yellow is too pale.
_COLOURS = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
_STYLES = ("-", "--")
_MOST_NAMED = len(_COLOURS) * len(_STYLES)
"""Of more classes each is a thin grey line."""

MOST_IN_MATRIX = 40
_CELL_INCHES = 0.36


def draw_curves(classes: Sequence[Curves]) -> bytes:
    """A PNG with precision over recall, F1 over the threshold, and precision over the score."""
    figure = Figure(figsize=(12, 11), dpi=100, layout="constrained")
    (at_50, mean), (f1, calibration) = figure.subplots(2, 2)
    everything, measured = overall(classes), [one for one in classes if one.num_targets]
    for axes, column, name in (
        (at_50, "precision_50", "AP .50"),
        (mean, "precision", "AP .50:.95"),
    ):
        lines = [_of_recall(one, getattr(one, column), name) for one in (everything, *measured)]
        _draw_lines(axes, lines, "recall", f"precision, {_AT[column]}")
    _draw_lines(f1, [_of_threshold(one) for one in (everything, *measured)], "threshold", "F1")
    _draw_calibration(calibration, everything)
    return _png(figure)


_AT = {"precision_50": "at IoU .50", "precision": "mean over IoU .50 to .95"}

_Line = tuple[Floats, Floats, str]
"""x, y, label"""


def _of_recall(curves: Curves, precision: Floats, what: str) -> _Line:
    return RECALLS, precision, f"{curves.name}, {what} {precision.mean():.3f}"


def _of_threshold(curves: Curves) -> _Line:
    """From the threshold 0, where all detections count, to 1, where none does."""
    points, best = operating_points(curves), best_point(curves)
    label = f"F1 {best.f1:.3f} at {best.threshold:.3f}" if best else "nothing found"
    rising = points.f1[::-1]
    return (
        np.array([0, *points.thresholds[::-1], 1]),
        np.array([*rising[:1], *rising, 0] if len(rising) else [0, 0]),
        f"{curves.name}, {label}",
    )


def _draw_lines(axes: Axes, lines: Sequence[_Line], across: str, up: str) -> None:
    """The first line is that of all classes, in black and above the others."""
    everything, *classes = lines
    named = len(classes) <= _MOST_NAMED
    for number, (x, y, label) in enumerate(classes):
        style, colour = divmod(number, len(_COLOURS))
        if named:
            axes.step(
                x, y, _STYLES[style], where="pre", color=_COLOURS[colour], lw=1.5, label=label
            )
        else:
            title = f"each of {len(classes)} classes" if number == 0 else None
            axes.step(x, y, where="pre", color="0.82", lw=0.6, label=title)
    x, y, label = everything
    axes.step(x, y, where="pre", color="black", lw=2.2, label=label)
    axes.set(xlabel=across, ylabel=up)
    _finish(axes)


def _draw_calibration(axes: Axes, curves: Curves) -> None:
    found = reliability(curves)
    edges, heights = np.arange(BINS) / BINS, np.nan_to_num(found.precision)
    axes.bar(edges, heights, 1 / BINS, align="edge", color=_COLOURS[4], ec="white")
    axes.plot([0, 1], [0, 1], "--", color="0.4", lw=1, label="score = precision")
    error = "no detections" if found.error is None else f"calibration error {found.error:.3f}"
    label = f"{curves.name}, {error}"
    axes.plot(found.mean_score, found.precision, "o", color="black", ms=5, label=label)
    axes.set_xticks(edges + 0.5 / BINS, [f"{count:,}" for count in found.counts], minor=True)
    axes.tick_params(axis="x", which="minor", length=0, pad=18, labelsize=8)
    axes.set(xlabel="score, and number of detections", ylabel="precision at IoU .50")
    _finish(axes)


def _finish(axes: Axes) -> None:
    """The legend stands above the axes, where it hides no curve."""
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.legend(
        handles[-1:] + handles[:-1],
        labels[-1:] + labels[:-1],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be called $5


def draw_confusion(pairs: Pairs, class_names: Sequence[str], threshold: float) -> bytes:
    """A PNG of the confusion matrix, each row shaded by its shares; of many classes the worst.

    Args:
        class_names: index = class id.
        threshold: what the pairs were made at.
    """
    matrix = confusion_matrix(pairs, len(class_names))
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    shown = _shown(matrix)
    names = [(*class_names, "background")[index] for index in shown]
    matrix, shares = matrix[np.ix_(shown, shown)], shares[np.ix_(shown, shown)]
    side = _CELL_INCHES * len(shown)
    figure = Figure(figsize=(side + 3.4, side + 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", color=ink, ha="center", va="center", fontsize=8)
    _name_cells(axes, names)
    axes.set(xlabel="found as (background: missed)", ylabel="target (background: false detection)")
    axes.set_title(_title(pairs, len(shown) - 1, threshold), fontsize=10, loc="left")
    return _png(figure)


def _name_cells(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    between = np.arange(len(names) - 1) + 0.5
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color="0.88", lw=0.5)
    axes.axhline(len(names) - 1.5, color="0.4", lw=1)
    axes.axvline(len(names) - 1.5, color="0.4", lw=1)


def _shown(matrix: NDArray[np.int64]) -> list[int]:
    """Of the classes that occur those with most errors, in their order, and the background."""
    boxes = matrix.sum(axis=0) + matrix.sum(axis=1)
    errors = (boxes - 2 * matrix.diagonal())[:-1]
    worst = [index for index in np.argsort(-errors, kind="stable") if boxes[index]]
    return [*sorted(worst[:MOST_IN_MATRIX]), len(matrix) - 1]


def _title(pairs: Pairs, shown: int, threshold: float) -> str:
    occurring = len({*pairs.target_classes, *pairs.detection_classes} - {BACKGROUND})
    which = f"the {shown} of {occurring} classes with most errors" if shown < occurring else ""
    return f"boxes at IoU {IOU:.2f}, score from {threshold:.3f}\n{which}"


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
