"""A look at many pictures at once: photos in a grid, with the boxes that were found on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]  # (H, W, 3), BGR
Colour = tuple[int, int, int]  # RGB, as PIL takes it


@dataclass(frozen=True)
class Picture:
    """One cell: a photo with its boxes, or the reason why there is none."""

    caption: str
    """Usually the file's name."""
    note: str
    """Written small under the caption; where there is no photo, in its place."""
    image_bgr: Pixels | None = None
    boxes_xyxy: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 4)))
    """(N, 4) pixels of `image_bgr`."""
    labels: Sequence[str] = ()
    class_ids: Sequence[int] = ()


def contact_sheet(
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    columns: int = 4,
    cell_size: tuple[int, int] = (260, 320),
) -> Pixels:
    """Lay the pictures out in a grid, with a caption under each and a legend on top.

    Args:
        class_names: index = class_id; the legend shows those that appear.
        cell_size: (height, width) in pixels that a photo is fitted into.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    cell_height, cell_width = cell_size
    width = _MARGIN + columns * (cell_width + _MARGIN)
    legend = _legend(sorted({c for p in pictures for c in p.class_ids}), class_names, width)
    row_height = cell_height + _CAPTION_HEIGHT + _MARGIN
    num_rows = -(-len(pictures) // columns)

    sheet = Image.new("RGB", (width, legend.height + num_rows * row_height), _PAPER)
    sheet.paste(legend, (0, 0))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x, y = _MARGIN + column * (cell_width + _MARGIN), legend.height + row * row_height
        sheet.paste(_cell(picture, cell_size), (x, y))
    return _to_bgr(sheet)


def draw_boxes(
    image_bgr: Pixels,
    boxes_xyxy: NDArray[np.floating],
    labels: Sequence[str],
    class_ids: Sequence[int],
) -> Pixels:
    """A copy of the image with a labelled frame per box, coloured by class.

    Args:
        image_bgr: (H, W, 3) uint8.
        boxes_xyxy: (N, 4) pixels of this image. Where labels overlap, the first box's is on top.
    """
    canvas = Image.fromarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))
    draw = ImageDraw.Draw(canvas)
    framed = list(zip(boxes_xyxy.tolist(), labels, class_ids, strict=True))[::-1]
    for box, _, class_id in framed:
        draw.rectangle(_outline(box), outline=class_colour(class_id), width=2)
    for (x1, y1, *_), label, class_id in framed:
        _draw_tag(draw, (x1, y1), label, class_colour(class_id), canvas.width)
    return _to_bgr(canvas)


def class_colour(class_id: int) -> Colour:
    """RGB; the same class has the same colour on every sheet."""
    red, green, blue = ImageColor.getrgb(_COLOURS[class_id % len(_COLOURS)])[:3]
    return red, green, blue


# Sasha Trubetskoy's list of simple, distinct colours, those that show on photos.
_COLOURS = [
    *("#e6194b", "#4363d8", "#ffe119", "#3cb44b", "#f58231", "#42d4f4", "#f032e6", "#911eb4"),
    *("#bfef45", "#fabed4", "#469990", "#9a6324", "#800000", "#aaffc3", "#808000", "#dcbeff"),
    *("#000075", "#ffd8b1"),
]
_PAPER: Colour = (250, 250, 250)
_FRAME: Colour = (236, 236, 236)
_FAILED: Colour = (205, 205, 205)
_INK: Colour = (40, 40, 40)
_FAINT_INK: Colour = (120, 120, 120)

_MARGIN = 14
_CAPTION_HEIGHT = 42
_TEXT_SIZE = 14
_SMALL_TEXT_SIZE = 12


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _cell(picture: Picture, cell_size: tuple[int, int]) -> Image.Image:
    height, width = cell_size
    failed = picture.image_bgr is None
    cell = Image.new("RGB", (width, height + _CAPTION_HEIGHT), _PAPER)
    draw = ImageDraw.Draw(cell)
    draw.rectangle((0, 0, width - 1, height - 1), fill=_FAILED if failed else _FRAME)
    if picture.image_bgr is None:
        centre = (width / 2, height / 2)
        draw.text(centre, picture.note, _INK, _font(_TEXT_SIZE + 2), anchor="mm")
    else:
        photo = _fitted(picture, picture.image_bgr, cell_size)
        cell.paste(photo, ((width - photo.width) // 2, (height - photo.height) // 2))
        draw.text((0, height + 24), picture.note, _FAINT_INK, _font(_SMALL_TEXT_SIZE))
    caption = _shortened(picture.caption, _font(_TEXT_SIZE), width)
    draw.text((0, height + 5), caption, _INK, _font(_TEXT_SIZE))
    return cell


def _fitted(picture: Picture, image_bgr: Pixels, cell_size: tuple[int, int]) -> Image.Image:
    """The photo at the cell's size; boxes are drawn after resizing, so that they stay crisp."""
    height, width = image_bgr.shape[:2]
    scale = min(cell_size[0] / height, cell_size[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(image_bgr, size, interpolation=interpolation), np.uint8)
    drawn = draw_boxes(resized, picture.boxes_xyxy * scale, picture.labels, picture.class_ids)
    return Image.fromarray(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB))


def _legend(class_ids: Sequence[int], class_names: Sequence[str], width: int) -> Image.Image:
    line_height, swatch = 24, 13
    spots = []
    x, y = _MARGIN, _MARGIN
    for class_id in class_ids:
        entry_width = swatch + 6 + round(_font(_TEXT_SIZE).getlength(class_names[class_id])) + 20
        if x > _MARGIN and x + entry_width > width:
            x, y = _MARGIN, y + line_height
        spots.append((x, y))
        x += entry_width
    legend = Image.new("RGB", (width, y + line_height if spots else _MARGIN), _PAPER)
    draw = ImageDraw.Draw(legend)
    for class_id, (x, y) in zip(class_ids, spots, strict=True):
        draw.rectangle((x, y, x + swatch, y + swatch), fill=class_colour(class_id))
        text_at = (x + swatch + 6, y + swatch / 2)
        draw.text(text_at, class_names[class_id], _INK, _font(_TEXT_SIZE), anchor="lm")
    return legend


def _draw_tag(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], label: str, colour: Colour, width: int
) -> None:
    """The label on its class's colour: above the box, or inside where there is no room above."""
    font = _font(_SMALL_TEXT_SIZE)
    tag_width, tag_height = round(font.getlength(label)) + 6, _SMALL_TEXT_SIZE + 4
    x = min(max(0, round(corner[0])), max(0, width - tag_width))
    y = max(0, round(corner[1]) - tag_height)
    draw.rectangle((x, y, x + tag_width - 1, y + tag_height - 1), fill=colour)
    draw.text((x + 3, y + tag_height / 2), label, _ink_on(colour), font, anchor="lm")


def _ink_on(colour: Colour) -> Colour:
    red, green, blue = colour
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


def _outline(box_xyxy: Sequence[float]) -> tuple[float, float, float, float]:
    """The box's outermost pixels; PIL wants the right and the lower one included, and in order."""
    x1, y1, x2, y2 = (round(value) for value in box_xyxy)
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The text with its middle left out when it is too wide: names differ at their ends."""
    kept = len(text)
    shortened = text
    while kept > 2 and font.getlength(shortened) > width:
        kept -= 1
        shortened = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return shortened


def _to_bgr(image: Image.Image) -> Pixels:
    return np.asarray(cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR), np.uint8)
