"""Pictures of a training run: curves as a PNG, and the same numbers for TensorBoard.

Both are made anew from all epochs each time, so that a run that was continued, and did an epoch
twice, shows it once.
"""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from pipelines.training.metrics import EpochRow

EVENTS = "events.out.tfevents.0"
"""TensorBoard looks for `tfevents` in a file's name, and calls a run by its folder."""

_LOSSES = {
    "loss": ("total", "black"),
    "loss_iou": ("box (IoU)", "tab:blue"),
    "loss_objectness": ("objectness", "tab:orange"),
    "loss_class": ("class", "tab:green"),
    "loss_l1": ("L1", "tab:purple"),
}
_VALIDATION = {"ap": ("AP", "tab:red"), "ap50": ("AP50", "tab:cyan")}
_TAGS = {"loss": "loss/total", "ap": "validation/AP", "ap50": "validation/AP50"}

_FEW_POINTS = 40
"""Up to so many are marked one by one; a lone one would be no line."""


def draw_curves(rows: Sequence[EpochRow]) -> bytes:
    """A PNG with the losses, the validations and the learning rate over the epochs.

    Args:
        rows: of at least one epoch, in their order.
    """
    figure = Figure(figsize=(10, 10), dpi=100, layout="constrained")
    losses, validation, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    _draw_losses(losses, rows)
    _draw_validation(validation, rows)
    _draw_rate(rate, rows)
    for axes in (losses, validation, rate):
        axes.grid(alpha=0.3)
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rate.set_xlim(rows[0].epoch - 0.5, rows[-1].epoch + 0.5)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_losses(axes: Axes, rows: Sequence[EpochRow]) -> None:
    for column, (label, colour) in _LOSSES.items():
        # L1 is 0 until it is switched on.
        points = [(row.epoch, value) for row in rows if (value := getattr(row, column))]
        _draw_line(axes, points, label, colour, width=2.0 if column == "loss" else 1.3)
    axes.set_ylabel("training loss per foreground point")
    axes.set_ylim(bottom=0)
    _draw_legend(axes)


def _draw_validation(axes: Axes, rows: Sequence[EpochRow]) -> None:
    axes.set_ylabel("AP on the validation table")
    axes.set_ylim(0, 1)
    for column, (label, colour) in _VALIDATION.items():
        values = [(row.epoch, getattr(row, column)) for row in rows]
        points = [(epoch, value) for epoch, value in values if value is not None]
        if points:
            epoch, best = max(points, key=lambda point: (point[1], -point[0]))
            _draw_line(axes, points, f"{label}, best {best:.3f} in epoch {epoch}", colour)
    if axes.has_data():
        _draw_legend(axes)
    else:
        axes.text(0.5, 0.5, "no validation yet", transform=axes.transAxes, ha="center")


def _draw_rate(axes: Axes, rows: Sequence[EpochRow]) -> None:
    _draw_line(axes, [(row.epoch, row.learning_rate) for row in rows], "", "tab:gray")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _draw_legend(axes: Axes) -> None:
    """Above the axes, where it hides no curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_LOSSES), frameon=False)


def _draw_line(
    axes: Axes, points: Sequence[tuple[int, float]], label: str, colour: str, width: float = 1.5
) -> None:
    epochs, values = [point[0] for point in points], [point[1] for point in points]
    marker = "o" if len(points) <= _FEW_POINTS else ""
    axes.plot(epochs, values, marker=marker, ms=3, label=label, color=colour, linewidth=width)


def tensorboard_events(rows: Sequence[EpochRow]) -> bytes:
    """A TensorBoard event file with a scalar for each column; the step is the epoch.

    The wall time of an epoch is the seconds of training up to its end, so that the same rows make
    the same file, and more rows a file that begins so.
    """
    ends_s = accumulate(row.seconds for row in rows)
    events = [event_pb2.Event(file_version="brain.Event:2")]
    for row, end_s in zip(rows, ends_s, strict=True):
        values = {name: value for name, value in asdict(row).items() if value is not None}
        step = values.pop("epoch")
        scalars = [summary.scalar(_tag(name), value) for name, value in values.items()]
        events += [event_pb2.Event(wall_time=end_s, step=step, summary=one) for one in scalars]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, EVENTS)
        writer = RecordWriter(str(path))
        for event in events:
            writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()


def _tag(column: str) -> str:
    """TensorBoard groups tags by what stands before the slash."""
    return _TAGS.get(column, column.replace("loss_", "loss/"))
