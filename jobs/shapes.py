r"""Generate an archive of shapes with a known truth, to train on without anybody's photos.

python -m jobs.shapes --output .demo/training/train --num_images 1500 --seed 1

Writes the images to <output>/images and the training table to <output>/truth.parquet.
"""

from dataclasses import dataclass
from pathlib import Path

from jobs.cli import exit_on_input_error, parse
from pipelines import datasets


@dataclass(frozen=True, kw_only=True)
class ShapesConfig:
    """Which images to generate."""

    output: str
    """A local folder."""
    num_images: int = 1500
    """Images with shapes on them, or on some of them none."""
    seed: int = 1
    """Image i of a seed is always the same; the demo's archive is that of seed 0."""
    num_broken: int = 0
    """Further files that cannot be decoded."""

    def __post_init__(self) -> None:
        if "://" in self.output:
            raise ValueError(f"output={self.output!r}: must be a local folder, for example shapes")
        if self.num_images < 1:
            raise ValueError(f"num_images={self.num_images}: must be at least 1")
        for name in ("seed", "num_broken"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")


@exit_on_input_error
def main() -> None:
    config = parse(ShapesConfig, __doc__)
    folder = Path(config.output).expanduser().absolute()
    table = datasets.generate_archive(
        folder, config.num_images, config.seed, str(folder / "images"), config.num_broken
    )
    datasets.write_training_table(str(folder / "truth.parquet"), table)
    num_boxes = sum(map(len, table["class_ids"].to_pylist()))
    print(f"{config.num_images} images with {num_boxes} boxes: {folder / 'truth.parquet'}")


if __name__ == "__main__":
    main()
