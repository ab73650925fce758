"""Where every image of a mosaic and of a mixup goes: what is drawn, and the matrices it makes.

All of it is tiny and on the CPU, so that a GPU's run sees the same numbers and is never waited
for. S = mosaics. Matrices are 2x3 and act on positions, where the first pixel reaches from 0 to 1.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from yolox_core.augment.settings import Augmentation

TILE_IS_RIGHT = torch.tensor([False, True, False, True])
TILE_IS_BELOW = torch.tensor([False, False, True, True])
"""The four tiles of a mosaic, in order: top left, top right, bottom left, bottom right."""


@dataclass(frozen=True)
class Placements:
    """What was drawn for a batch, on the CPU; float32 unless said otherwise."""

    images: Tensor
    """(S,) int64: the images of the batch that become mosaics."""
    tiles: Tensor
    """(S, 4) int64: the canvases of the four tiles; the first is the image itself."""
    centres: Tensor
    """(S, 2) x, y where the tiles meet, whole pixels of a mosaic of 2W x 2H."""
    degrees: Tensor
    """(S,) anticlockwise rotation."""
    scales: Tensor
    """(S,) resize factor."""
    shears: Tensor
    """(S, 2) degrees, along x and y."""
    translations: Tensor
    """(S, 2) x, y in output pixels."""
    is_mixed: Tensor
    """(S,) bool: the mosaic is to be blended with another canvas, if it shows a target."""
    mixup_sources: Tensor
    """(S,) int64: that canvas, one that has a target."""
    mixup_scales: Tensor
    """(S,) its resize factor."""
    mixup_flips: Tensor
    """(S,) bool: it is mirrored."""
    mixup_crops: Tensor
    """(S, 2) in [0, 1): the share of what is too wide and too high that is cut left and above."""

    def renumbered(self) -> tuple[Tensor, "Placements"]:
        """Which canvases are used, (U,) int64, rising, and the placements with indices into these.

        Most of a large reservoir is not.
        """
        wanted = torch.cat((self.tiles, self.mixup_sources[:, None]), dim=1)
        used, index = torch.unique(wanted, return_inverse=True)
        return used, replace(self, tiles=index[:, :4], mixup_sources=index[:, 4])


def draw_placements(
    targets: Tensor,
    batch_size: int,
    size: tuple[int, int],
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Placements:
    """Draw the mosaics and mixups of a batch.

    Args:
        targets: (N, M, 5) of all canvases; the first `batch_size` are the batch.
        batch_size: images that may become mosaics.
        size: (H, W) of the canvases.
        augmentation: probabilities and ranges.
        generator: on the CPU.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    is_mosaic = uniform(0, 1, batch_size) < augmentation.mosaic_probability
    images = is_mosaic.nonzero().squeeze(1)
    s = len(images)
    partners = torch.randint(len(targets), (s, 3), generator=generator)
    shear, translate = augmentation.max_shear, augmentation.max_translate
    width_height = torch.tensor((size[1], size[0]))

    with_targets = targets[..., 3:].gt(0).all(dim=-1).any(dim=1).nonzero().squeeze(1)
    is_mixed = uniform(0, 1, s) < augmentation.mixup_probability
    if not len(with_targets):
        is_mixed, with_targets = torch.zeros_like(is_mixed), torch.zeros(1, dtype=torch.long)
    choice = torch.randint(len(with_targets), (s,), generator=generator)
    return Placements(
        images=images,
        tiles=torch.cat((images[:, None], partners), dim=1),
        centres=(uniform(0.5, 1.5, s, 2) * width_height).trunc(),
        degrees=uniform(-augmentation.max_degrees, augmentation.max_degrees, s),
        scales=uniform(*augmentation.mosaic_scale, s),
        shears=uniform(-shear, shear, s, 2),
        translations=uniform(-translate, translate, s, 2) * width_height,
        is_mixed=is_mixed,
        mixup_sources=with_targets[choice],
        mixup_scales=uniform(*augmentation.mixup_scale, s),
        mixup_flips=uniform(0, 1, s) < 0.5,
        mixup_crops=uniform(0, 1, s, 2),
    )


def inner_corners(placements: Placements, content: Tensor) -> Tensor:
    """The corner of each tile's photo that lies where the tiles meet.

    Args:
        placements: of S mosaics.
        content: (N, 4) xyxy rectangle of the photo on each canvas.

    Returns:
        (S, 4, 2) float32 x, y on the tile's canvas.
    """
    left, top, right, bottom = content[placements.tiles].float().unbind(dim=-1)  # each (S, 4)
    x, y = torch.where(TILE_IS_RIGHT, left, right), torch.where(TILE_IS_BELOW, top, bottom)
    return torch.stack((x, y), dim=-1)


def mosaic_matrices(placements: Placements) -> Tensor:
    """(S, 2, 3) mosaic pixels to output pixels: turned and resized about 0, sheared, moved.

    The official order: the shears mix the rows of cv2.getRotationMatrix2D's matrix. Unlike there
    the matrix acts on positions rather than on pixel indices, which are half a pixel off: boxes
    are positions, and would miss their objects by up to that at a small scale.
    """
    angle = placements.degrees.deg2rad()
    cos, sin = placements.scales * angle.cos(), placements.scales * angle.sin()
    shear_x, shear_y = placements.shears.deg2rad().tan().unbind(dim=1)
    move_x, move_y = placements.translations.unbind(dim=1)
    rows = (
        torch.stack((cos - shear_y * sin, sin + shear_y * cos, move_x), dim=1),
        torch.stack((shear_x * cos - sin, shear_x * sin + cos, move_y), dim=1),
    )
    return torch.stack(rows, dim=1)


def mixup_matrices(placements: Placements, size: tuple[int, int]) -> Tensor:
    """(S, 2, 3) canvas pixels to output pixels: resized, mirrored, cropped where too large."""
    side = torch.tensor((size[1], size[0]), dtype=torch.float32)
    resized = (side * placements.mixup_scales[:, None]).trunc()  # (S, 2) width, height
    scale = resized / side
    offset = -(placements.mixup_crops * (resized - side).clamp(min=0)).floor()
    mirrored = torch.stack((placements.mixup_flips, torch.zeros_like(placements.mixup_flips)), 1)
    offset = torch.where(mirrored, resized + offset, offset)
    return torch.cat((torch.where(mirrored, -scale, scale).diag_embed(), offset[..., None]), dim=2)


def inverted(matrices: Tensor) -> Tensor:
    """(S, 2, 3) matrices of the way back."""
    # In float64: the way back from a scale of 0.1 is ten times as sensitive.
    linear = matrices[..., :2].double().inverse()
    offset = -linear @ matrices[..., 2:].double()
    return torch.cat((linear, offset), dim=2).float()
