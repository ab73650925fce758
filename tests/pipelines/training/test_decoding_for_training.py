"""Training's photos at a part of their size: the boxes, and what the model is shown."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.datasets import class_names_of, read_coco, training_table
from pipelines.detectors import DetectorSettings
from pipelines.photos import decode_image
from pipelines.training.loader import Batch, BatchLoader
from pipelines.training.validation import validate
from tests.training_rows import row
from yolox_core import Convention, letterbox

CANVAS = (96, 128)
TURNED = 6


def photo(height: int, width: int) -> np.ndarray:
    """Smooth, as photos are at twelve megapixels, and another in each corner."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)


def loaded(uri: Path, size: tuple[int, int], boxes: list, convention: Convention) -> Batch:
    height, width = size
    table = training_table(
        [row(str(uri), boxes, [0] * len(boxes), width=width, height=height)], ["cat"]
    )
    return BatchLoader(table, CANVAS, convention, max_cache_bytes=0, threads=1).load([0])


@pytest.mark.parametrize("convention", ["official", "seed"])
@pytest.mark.parametrize("orientation", [1, TURNED])
@pytest.mark.parametrize("stored", [(601, 803), (803, 601), (1000, 1333), (417, 1251)])
def test_a_large_jpeg_gives_the_targets_of_all_its_pixels_and_nearly_the_same_canvas(
    tmp_path: Path, stored: tuple[int, int], orientation: int, convention: Convention
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo(*stored)).save(tmp_path / "a.jpg", quality=97, exif=exif)
    whole = decode_image((tmp_path / "a.jpg").read_bytes(), 10**7)
    cv2.imwrite(str(tmp_path / "a.bmp"), whole)  # which is always decoded in full
    height, width = size = whole.shape[:2]
    boxes = [[1.25, 2.5, width / 3, height / 2], [width - 31.5, 0, width, height]]
    in_part, in_full = (
        loaded(tmp_path / name, size, boxes, convention) for name in ("a.jpg", "a.bmp")
    )
    assert in_part.targets.tolist() == in_full.targets.tolist()
    assert in_part.content.tolist() == in_full.content.tolist()
    left, top, right, bottom = in_full.content[0].tolist()
    expected, shown = (of.canvases[0, top:bottom, left:right].float() for of in (in_full, in_part))
    of_a_shift_by_a_pixel = min(expected.diff(dim=axis).abs().mean() for axis in (0, 1))
    assert (shown - expected).abs().mean() < of_a_shift_by_a_pixel


def test_a_photo_that_is_not_twice_its_canvas_is_shown_as_ever_byte_by_byte(shared: Path) -> None:
    folder = shared / "data/coco_val79"
    truth = read_coco(str(folder / "instances.json"), str(folder / "images")).slice(0, 12)
    batch = BatchLoader(truth, (416, 416), "official", max_cache_bytes=0, threads=1).load(range(12))
    for uri, canvas in zip(batch.uris, batch.canvases.numpy(), strict=True):
        whole = decode_image(Path(uri).read_bytes(), 10**7)
        np.testing.assert_array_equal(canvas, letterbox(whole, (416, 416))[0])


def scaled(truth: pa.Table, long_side: int, uris: list[str]) -> pa.Table:
    """The same photos with so many pixels, which lie elsewhere."""
    rows = truth.to_pylist()
    for found, uri in zip(rows, uris, strict=True):
        scale = long_side / max(found["width"], found["height"])
        found |= {side: round(scale * found[side]) for side in ("width", "height")}
        found["boxes"] = (np.reshape(found["boxes"], (-1, 4)) * scale).tolist()
        found["areas"] = [area * scale**2 for area in found["areas"]]
        found["image_uri"] = uri
    return training_table(rows, class_names_of(truth))


def enlarged(truth: pa.Table, long_side: int, folder: Path) -> pa.Table:
    """JPEGs of so many pixels of these photos."""
    table = scaled(truth, long_side, [f"{folder}/{number}.jpg" for number in range(len(truth))])
    sizes = zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)
    for before, uri, size in zip(truth["image_uri"], table["image_uri"], sizes, strict=True):
        pixels = cv2.resize(cv2.imread(before.as_py()), size, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(uri.as_py(), pixels)
    return table


def ap_of(canvases: np.ndarray, truth: pa.Table, checkpoint: bytes, folder: Path) -> float:
    """COCO AP of weights on (N, 416, 416, 3) canvases, which are taken for photos."""
    folder.mkdir()
    uris = [f"{folder}/{number}.png" for number in range(len(canvases))]
    for uri, canvas in zip(uris, canvases, strict=True):
        cv2.imwrite(uri, canvas)
    square = scaled(truth, 416, uris).to_pylist()
    rows = [found | {"width": 416, "height": 416} for found in square]
    settings = DetectorSettings(
        input_size=(416, 416),
        score_threshold=0.01,
        nms_threshold=0.65,
        max_pixels=10**8,
        batch_size=8,
        threads=2,
        device="cpu",
    )
    ap = validate(checkpoint, training_table(rows, class_names_of(truth)), settings).evaluation.ap
    assert ap is not None
    return ap


@pytest.mark.slow
def test_what_the_loader_shows_of_photos_of_12_megapixels_has_the_ap_of_all_their_pixels(
    shared: Path, tmp_path: Path
) -> None:
    folder = shared / "data/coco_val79"
    truth = read_coco(str(folder / "instances.json"), str(folder / "images"))
    large = enlarged(truth, 4000, tmp_path)
    loader = BatchLoader(large, (416, 416), "official", max_cache_bytes=0, threads=2)
    in_part = loader.load(range(len(large)))
    in_full = [
        letterbox(decode_image(Path(uri).read_bytes(), 10**8), (416, 416))[0]
        for uri in in_part.uris
    ]
    checkpoint = (shared / "weights/yolox_nano_coco.pth").read_bytes()
    ap = ap_of(in_part.canvases.numpy(), truth, checkpoint, tmp_path / "part")
    assert ap == pytest.approx(
        ap_of(np.stack(in_full), truth, checkpoint, tmp_path / "full"), abs=0.001
    )
