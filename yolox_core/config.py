"""The presets of YOLOX: how deep, how wide, depthwise or not."""

from dataclasses import dataclass

STRIDES = (8, 16, 32)
"""Input pixels per cell of the three levels, finest first."""

ACTIVATIONS = ("silu", "relu", "lrelu", "mish")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the layers of a YOLOX are built from."""

    preset: str
    num_classes: int
    depth: float
    """Multiplies the number of bottlenecks in each CSP layer."""
    width: float
    """Multiplies the number of channels."""
    depthwise: bool = False
    """3x3 convolutions become a depthwise and a 1x1 convolution."""
    activation: str = "silu"
    """One of `ACTIVATIONS`."""

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes={self.num_classes}: a detector needs at least one class")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation={self.activation!r}: choose one of {', '.join(ACTIVATIONS)}"
            )


@dataclass(frozen=True)
class _Scale:
    depth: float
    width: float
    depthwise: bool = False


_SCALES = {
    "nano": _Scale(0.33, 0.25, depthwise=True),
    "tiny": _Scale(0.33, 0.375),
    "s": _Scale(0.33, 0.5),
    "m": _Scale(0.67, 0.75),
    "l": _Scale(1.0, 1.0),
    "x": _Scale(1.33, 1.25),
}

PRESETS = tuple(_SCALES)


def model_config(preset: str, num_classes: int = 80, activation: str = "silu") -> ModelConfig:
    """The configuration of a published preset.

    Raises:
        ValueError: an unknown preset or activation, or fewer than one class.
    """
    if preset not in _SCALES:
        raise ValueError(f"preset={preset!r}: choose one of {', '.join(PRESETS)}")
    scale = _SCALES[preset]
    return ModelConfig(
        preset=preset,
        num_classes=num_classes,
        depth=scale.depth,
        width=scale.width,
        depthwise=scale.depthwise,
        activation=activation,
    )


def check_input_size(height: int, width: int) -> None:
    """Raises ValueError unless both sides are positive multiples of the coarsest stride."""
    coarsest = STRIDES[-1]
    if any(side <= 0 or side % coarsest for side in (height, width)):
        raise ValueError(
            f"input size ({height}, {width}): height and width must be positive multiples of "
            f"{coarsest}, the model's coarsest stride (for example 416 or 640)"
        )
