from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.annotations import training_table, write_training_table
from pipelines.errors import InputError
from pipelines.images import ErrorKind
from pipelines.training_data import BatchLoader, epoch_rows, read_training_data

NAMES = ["cat", "dog"]


def write_photo(path: Path, width: int, height: int, grey: int = 50) -> str:
    cv2.imwrite(str(path), np.full((height, width, 3), grey, np.uint8))
    return str(path)


def row(image_uri: str, boxes: list[list[float]], class_ids: list[int], **changes: object) -> dict:
    values = {
        "image_uri": image_uri,
        "width": 64,
        "height": 32,
        "boxes": boxes,
        "class_ids": class_ids,
        "is_crowd": [False] * len(boxes),
        "areas": [100.0] * len(boxes),
    }
    return values | changes


def loader_of(rows: list[dict], max_cache_bytes: int = 10**6) -> BatchLoader:
    return BatchLoader(
        training_table(rows, NAMES),
        (32, 32),
        "official",
        max_cache_bytes=max_cache_bytes,
        threads=1,
    )


def write(path: Path, rows: list[dict], names: list[str] = NAMES) -> str:
    write_training_table(str(path), training_table(rows, names))
    return str(path)


def rows_of(rank: int, *, num_images: int = 10, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return epoch_rows(num_images, 2, seed=seed, epoch=epoch, rank=rank, world_size=2)


def test_the_order_is_that_of_the_seed_and_the_epoch() -> None:
    np.testing.assert_array_equal(rows_of(0), rows_of(0))
    assert not np.array_equal(rows_of(0), rows_of(0, epoch=1))
    assert not np.array_equal(rows_of(0), rows_of(0, seed=1))


def test_the_workers_see_every_image_and_share_none() -> None:
    first, second = set(rows_of(0).flat), set(rows_of(1).flat)
    assert first == {0, 2, 4, 6, 8}
    assert second == {1, 3, 5, 7, 9}


@pytest.mark.parametrize("num_images", [2, 3, 4, 5, 9])
def test_the_workers_make_equal_steps_of_full_batches(num_images: int) -> None:
    shapes = {rows_of(rank, num_images=num_images).shape for rank in range(2)}
    assert shapes == {(-(-num_images // 4), 2)}


def test_targets_are_centres_and_sizes_on_the_canvas(tmp_path: Path) -> None:
    # 64x32 on a canvas of 32x32: half the size, in the upper half.
    uri = write_photo(tmp_path / "photo.png", 64, 32)
    batch = loader_of([row(uri, [[10, 4, 30, 24]], [1])]).load([0])
    assert batch.targets.tolist() == [[[1, 10, 7, 10, 10]]]
    assert batch.canvases.shape == (1, 32, 32, 3)
    assert batch.canvases[0, :16].eq(50).all()
    assert batch.canvases[0, 16:].eq(114).all()


def test_targets_are_padded_with_zeros(tmp_path: Path) -> None:
    uri = write_photo(tmp_path / "photo.png", 32, 32)
    loader = loader_of([row(uri, [], []), row(uri, [[0, 0, 8, 8], [8, 8, 16, 16]], [0, 1])])
    targets = loader.load([0, 1]).targets
    assert targets.shape == (2, 2, 5)
    assert targets[0].eq(0).all()
    assert loader.load([0]).targets.shape == (1, 0, 5)


def test_crowds_and_boxes_without_area_are_no_targets(tmp_path: Path) -> None:
    uri = write_photo(tmp_path / "photo.png", 32, 32)
    boxes = [[0.0, 0, 8, 8], [0, 0, 16, 16], [5, 5, 5, 9], [40, 0, 50, 8]]
    loader = loader_of([row(uri, boxes, [1] * 4, is_crowd=[False, True, False, False])])
    assert loader.load([0]).targets.tolist() == [[[1, 4, 4, 8, 8]]]


def test_a_broken_image_gives_its_place_to_a_good_one(tmp_path: Path) -> None:
    good = write_photo(tmp_path / "good.png", 32, 32)
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    broken, gone = str(tmp_path / "broken.jpg"), str(tmp_path / "gone.jpg")
    loader = loader_of([row(uri, [[0, 0, 8, 8]], [1]) for uri in (broken, good, gone)])
    batch = loader.load([0, 1, 2])
    assert batch.canvases.eq(batch.canvases[0]).all()
    assert batch.targets.tolist() == [[[1, 4, 4, 8, 8]]] * 3
    kinds = {uri: error.kind for uri, error in loader.broken.items()}
    assert kinds == {broken: ErrorKind.NOT_AN_IMAGE, gone: ErrorKind.GONE}


def test_a_batch_without_a_good_image_says_why(tmp_path: Path) -> None:
    loader = loader_of([row(str(tmp_path / "gone.jpg"), [[0, 0, 8, 8]], [1])])
    with pytest.raises(RuntimeError, match=r"gone\.jpg: .*No such file"):
        loader.load([0])


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    uris = [write_photo(tmp_path / f"{i}.png", 32, 32, grey=i) for i in range(3)]
    rows = [row(uri, [[0, 0, 8, 8]], [1]) for uri in uris]
    loader = loader_of(rows, max_cache_bytes=2 * 32 * 32 * 3)
    before = loader.load([0, 1, 2])
    for uri in uris[:2]:
        Path(uri).unlink()
    # Two canvases come from the cache; the third is read again.
    assert torch.equal(loader.load([0, 1, 2]).canvases, before.canvases)
    Path(uris[2]).unlink()
    loader.load([0, 1, 2])
    assert list(loader.broken) == uris[2:]


def test_iterating_gives_the_batches_in_their_order(tmp_path: Path) -> None:
    uris = [write_photo(tmp_path / f"{i}.png", 32, 32, grey=i) for i in range(4)]
    loader = loader_of([row(uri, [[0, 0, 8, 8]], [1]) for uri in uris])
    batches = loader.iterate(np.array([[3, 1], [0, 2]]))
    assert [batch.canvases[:, 0, 0, 0].tolist() for batch in batches] == [[3, 1], [0, 2]]


BOX = [[0.0, 0, 8, 8]]
BAD_TABLES = {
    "has no images": [],
    "has no boxes": [row("a", [], [])],
    "only those of crowds": [row("a", [[0.0, 0, 8, 8]], [0], is_crowd=[True])],
    "class ids from 0 to 2": [row("a", BOX * 2, [0, 2])],
    "class ids from -1 to 0": [row("a", BOX * 2, [0, -1])],
    "differ in length": [row("a", BOX, [0, 1])],
    "NaN or infinite": [row("a", [[0, 0, float("nan"), 8]], [0])],
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_a_table_that_cannot_be_learned_from_is_refused(tmp_path: Path, message: str) -> None:
    good = write(tmp_path / "good.parquet", [row("a", BOX, [0])])
    bad = write(tmp_path / "bad.parquet", BAD_TABLES[message])
    with pytest.raises(InputError, match=rf"bad\.parquet has .*{message.removeprefix('has ')}"):
        read_training_data(good, bad)


def test_tables_of_different_classes_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row("a", BOX, [0])])
    val = write(tmp_path / "val.parquet", [row("a", BOX, [0])], names=["dog", "cat"])
    with pytest.raises(InputError, match="same names in the same order"):
        read_training_data(train, val)


def test_good_tables_are_read(tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", [row("a", BOX, [0]), row("b", [], [])])
    data = read_training_data(table, table)
    assert data.class_names == ("cat", "dog")
    assert isinstance(data.train, pa.Table)
    assert len(data.val) == 2
