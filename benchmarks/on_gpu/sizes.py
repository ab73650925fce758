"""How large everything is: in full, or so small that two CPU cores do it in seconds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

ROOT = Path(__file__).parents[2]

Mode = Literal["eager", "graph", "compiled"]
"""How a forward pass is launched: kernel by kernel, as one CUDA graph, or by torch.compile."""


class Skipped(Exception):  # noqa: N818 - nothing went wrong
    """A part cannot run here; its text says why."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What all parts are told. The defaults are for a large GPU."""

    device: str = "cuda"
    shared: Path = ROOT.parent / "shared"
    """The folder of photos, annotations and weights that are no part of the project."""
    repeats: int = 5
    """Timings of which the median is given."""

    models: tuple[tuple[str, int], ...] = (("nano", 416), ("s", 640))
    """Presets, and the side of their canvases in pixels."""
    modes: tuple[Mode, ...] = ("eager", "graph", "compiled")
    batch_sizes: tuple[int, ...] = (64, 1, 16, 256)
    """Of forward passes; what matters most comes first, for time may run out."""
    passes: int = 10
    """Forward passes in a row that are timed as one."""
    matrix_side: int = 8192
    """Of the square matrices whose product says what the GPU can do at best."""

    distinct_photos: int = 200
    """JPEGs that are made; others are links to these."""
    first_photos: int = 4000
    """Photos of the first labelling run, whose pace says how many the second one has."""
    labelling_seconds: float = 20.0
    """What the second labelling run should take, apart from its start-up."""

    loss_batch_sizes: tuple[int, ...] = (8, 64)
    crowd: tuple[int, int] = (16, 700)
    """Images, and targets on each."""
    training: tuple[str, int, int] = ("s", 640, 64)
    """Preset, side in pixels and batch size."""
    training_photos: int = 512
    validated_photos: int = 79
    resumed_batch_size: int = 16
    resumed_steps: int = 8

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def on_gpu(self) -> bool:
        return self.torch_device.type == "cuda"


TINY: dict[str, Any] = {
    "repeats": 1,
    "models": (("nano", 64),),
    "modes": ("eager",),
    "batch_sizes": (1, 2),
    "passes": 1,
    "matrix_side": 64,
    "distinct_photos": 4,
    "first_photos": 32,
    "labelling_seconds": 0.1,
    "loss_batch_sizes": (2,),
    "crowd": (2, 20),
    "training": ("nano", 64, 4),
    "training_photos": 8,
    "validated_photos": 8,
    "resumed_batch_size": 4,
    "resumed_steps": 4,
}
"""The fields of `Sizes` that make everything small."""

Result = dict[str, Any]
Measure = Callable[[Sizes], Iterator[Result]]
"""A part: what it finds, as it finds it. May raise Skipped."""
