"""How strongly training images are changed: the numbers of the official recipe."""

from dataclasses import dataclass, replace

from yolox_core.config import PRESETS


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What differs between recipes; the defaults are those of the presets s, m, l and x.

    Colour jitter and mirroring are the same in all of them.
    """

    mosaic_probability: float = 1.0
    """Share of the images that become a mosaic of four."""
    mosaic_scale: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest factor by which a mosaic is resized."""
    mixup_probability: float = 1.0
    """Share of the mosaics that are blended with a further image."""
    mixup_scale: tuple[float, float] = (0.5, 1.5)
    """Smallest and largest factor by which that further image is resized."""
    max_degrees: float = 10.0
    """A mosaic is turned by up to so much, either way."""
    max_translate: float = 0.1
    """A mosaic is moved by up to this share of the canvas' sides, either way."""
    max_shear: float = 2.0
    """A mosaic is sheared by up to so many degrees along each axis, either way."""
    padding: int = 114
    """Grey of the canvases' padding, 0..255, for what a mosaic leaves open."""

    def __post_init__(self) -> None:
        for name in ("mosaic_probability", "mixup_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be between 0 and 1")
        for name in ("mosaic_scale", "mixup_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 10:
                raise ValueError(
                    f"{name}={getattr(self, name)}: must be a smallest and a largest factor, "
                    "above 0 and at most 10 (for example 0.5 and 1.5)"
                )
        # Two shears of 45 degrees flatten an image to a line.
        for name, limit in (("max_degrees", 180), ("max_translate", 1), ("max_shear", 44)):
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}={getattr(self, name)}: must be between 0 and {limit}")
        if not 0 <= self.padding <= 255:
            raise ValueError(f"padding={self.padding}: must be a grey between 0 and 255")


_SMALL_MODELS = Augmentation(mosaic_scale=(0.5, 1.5), mixup_probability=0.0)


def official_augmentation(preset: str) -> Augmentation:
    """What the published weights of a preset were trained with.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: choose one of {', '.join(PRESETS)}")
    if preset == "nano":
        return replace(_SMALL_MODELS, mosaic_probability=0.5)
    return _SMALL_MODELS if preset == "tiny" else Augmentation()
