from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.datasets import training_table
from pipelines.errors import InputError, RunStoppedError
from pipelines.photos.errors import ErrorKind, ImageError
from pipelines.photos.fetching import Fetched, ImageRef, fetch
from pipelines.training.loader import BatchLoader, epoch_rows
from pipelines.training.photo_cache import Fetch
from tests.training_rows import row

NAMES = ["cat", "dog"]
BOX = [[0.0, 0, 8, 8]]


def write_photo(path: Path, width: int, height: int, grey: int = 50) -> str:
    cv2.imwrite(str(path), np.full((height, width, 3), grey, np.uint8))
    return str(path)


def loader_of(rows: list[dict], max_cache_bytes: int = 10**6, fetch: Fetch = fetch) -> BatchLoader:
    return BatchLoader(
        training_table(rows, NAMES),
        (32, 32),
        "official",
        max_cache_bytes=max_cache_bytes,
        threads=1,
        fetch=fetch,
    )


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
    batch = loader_of([row(uri, [[10, 4, 30, 24]], [1], width=64)]).load([0])
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


def test_a_batch_without_a_good_image_gets_another_one_always_the_same(tmp_path: Path) -> None:
    uris = [write_photo(tmp_path / f"{i}.png", 32, 32, grey=i) for i in range(8)]
    uris[3] = str(tmp_path / "gone.png")
    rows = [row(uri, BOX, [1]) for uri in uris]
    substitutes = [loader_of(rows).load([3, 3]).uris for _ in range(2)]
    later = loader_of(rows)
    later.load([0, 1, 2])  # what is cached makes no difference
    assert substitutes == [later.load([3, 3]).uris] * 2
    assert set(substitutes[0]) < set(uris[:3] + uris[4:])


def test_a_worker_takes_substitutes_from_its_own_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.training.process_group.world_size", lambda: 2)
    uris = [write_photo(tmp_path / f"{i}.png", 32, 32) for i in range(12)]
    for broken in (1, 3, 5, 7, 9):
        Path(uris[broken]).unlink()
    loader = loader_of([row(uri, BOX, [1]) for uri in uris])
    for broken in (1, 3, 5, 7, 9):
        assert loader.load([broken]).uris == (uris[11],)


def test_a_table_without_a_good_image_says_why(tmp_path: Path) -> None:
    loader = loader_of([row(str(tmp_path / f"gone{i}.jpg"), BOX, [1]) for i in range(3)])
    with pytest.raises(InputError, match=r"nor of 3 others .*gone0\.jpg, gone: .*No such file"):
        loader.load([0])


def test_what_may_be_readable_tomorrow_stops_the_run_and_is_not_remembered_as_broken(
    tmp_path: Path,
) -> None:
    uris = [write_photo(tmp_path / f"{i}.png", 32, 32) for i in range(2)]
    outage = Fetched(ImageError(ErrorKind.IO_ERROR, "ConnectionError: S3 is away"))
    is_away = True

    def fetch_when_it_is_there(images: Sequence[ImageRef], max_bytes: int) -> list[Fetched]:
        return [outage] * len(images) if is_away else fetch(images, max_bytes)

    loader = loader_of([row(uri, BOX, [1]) for uri in uris], fetch=fetch_when_it_is_there)
    with pytest.raises(RunStoppedError, match=r"0\.png cannot be read now .*S3 is away"):
        loader.load([0, 1])
    is_away = False
    assert loader.broken == {}
    assert loader.load([0, 1]).uris == tuple(uris)


def test_a_photo_of_another_size_than_its_boxes_are_for_is_broken(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "turned.jpg", exif=turned)
    good = write_photo(tmp_path / "good.png", 64, 32)
    rows = [row(uri, BOX, [1], width=64) for uri in (str(tmp_path / "turned.jpg"), good)]
    loader = loader_of(rows)
    assert loader.load([0, 1]).uris == (good, good)
    [error] = loader.broken.values()
    assert error.kind is ErrorKind.CHANGED
    assert "has 32 x 64 px and its boxes are for 64 x 32 px" in str(error)


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
