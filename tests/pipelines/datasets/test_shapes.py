from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.datasets.shapes import (
    CLASS_NAMES,
    GeneratedImage,
    generate_archive,
    generate_broken_file,
    generate_image,
)
from pipelines.tables.schema import CLASS_NAMES_KEY, TRAINING

SEED = 7


@pytest.fixture(scope="module")
def images() -> list[GeneratedImage]:
    return [generate_image(SEED, index) for index in range(80)]


def test_an_image_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    generate_archive(tmp_path / "few", 2, SEED, "s3://bucket/images")
    generate_archive(tmp_path / "more", 4, SEED, "s3://bucket/images")
    for path in (tmp_path / "few" / "images").iterdir():
        assert (tmp_path / "more" / "images" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_makes_other_images() -> None:
    assert generate_image(SEED, 0).data != generate_image(SEED + 1, 0).data


def test_every_image_decodes_to_the_size_that_the_truth_states(
    images: list[GeneratedImage],
) -> None:
    for image in images[:20]:
        pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert pixels.shape == (image.height, image.width, 3)
        assert min(pixels.shape[:2]) >= 240


def test_boxes_lie_inside_their_image_and_hold_at_least_the_visible_area(
    images: list[GeneratedImage],
) -> None:
    for image in images:
        x1, y1, x2, y2 = image.boxes_xyxy.T
        assert np.all((x1 >= 0) & (y1 >= 0) & (x2 <= image.width) & (y2 <= image.height))
        assert np.all((x2 - x1) * (y2 - y1) >= image.areas)
        assert np.all(image.areas > 0)


def test_the_archive_has_all_classes_images_without_objects_and_both_formats(
    images: list[GeneratedImage],
) -> None:
    assert set(np.concatenate([image.class_ids for image in images])) == {0, 1, 2, 3, 4}
    assert 0 < sum(len(image.class_ids) == 0 for image in images) < 30
    assert {image.suffix for image in images} == {".jpg", ".png"}


def test_the_truth_is_a_training_table_of_the_good_images_only(tmp_path: Path) -> None:
    truth = generate_archive(tmp_path, 3, SEED, "s3://bucket/images/", num_broken=5)
    assert truth.schema.equals(TRAINING)
    assert len(list((tmp_path / "images").iterdir())) == 3 + 5
    assert truth.num_rows == 3
    assert truth.schema.metadata[CLASS_NAMES_KEY] == (
        b'["circle", "square", "triangle", "star", "ring"]'
    )
    for uri in truth["image_uri"].to_pylist():
        assert (tmp_path / "images" / uri.removeprefix("s3://bucket/images/")).exists()


def test_a_circle_fills_pi_quarters_of_its_box(images: list[GeneratedImage]) -> None:
    circle = CLASS_NAMES.index("circle")
    ratios = []
    for image in images:
        x1, y1, x2, y2 = image.boxes_xyxy.T
        whole = (x1 > 0) & (y1 > 0) & (x2 < image.width) & (y2 < image.height)
        ratios += list((image.areas / ((x2 - x1) * (y2 - y1)))[whole & (image.class_ids == circle)])
    # Some are covered in part and some are ellipses that stand askew, so the middle one counts.
    assert len(ratios) > 20
    assert np.median(ratios) == pytest.approx(np.pi / 4, abs=0.03)


@pytest.mark.parametrize(
    ("index", "name", "width"),
    [
        (0, "broken-0000-empty.jpg", None),
        (1, "broken-0001-html.jpg", None),
        (2, "broken-0002-truncated.jpg", 320),
        (3, "broken-0003-crc.png", 320),
        (4, "broken-0004-huge.png", 20_000),
        (5, "broken-0005-empty.jpg", None),
    ],
)
def test_broken_files_are_of_every_kind_in_turn(index: int, name: str, width: int | None) -> None:
    broken_name, data = generate_broken_file(SEED, index)
    assert broken_name == name
    if name.endswith(".png"):  # a PNG's width: 4 bytes behind the signature and the chunk's head
        assert int.from_bytes(data[16:20], "big") == width
    if width == 320:
        assert data[:2] == (b"\x89P" if name.endswith(".png") else b"\xff\xd8")
        assert not data.endswith(b"\xff\xd9")
