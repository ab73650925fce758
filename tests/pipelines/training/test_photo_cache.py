from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.datasets import training_table
from pipelines.detectors import DetectorSettings
from pipelines.photos import ErrorKind, ImageError, ImageRef
from pipelines.training.disk_cache import DiskCache
from pipelines.training.loader import BatchLoader
from pipelines.training.photo_cache import PhotoCache, open_photo_cache
from pipelines.training.validation import validate
from tests.conftest import Bucket
from tests.disks import mounted
from tests.faulty_s3 import FaultyS3
from tests.training_rows import row

MAX_BYTES = 10**6


def opened(folder: Path, max_disk_bytes: int = 10**6) -> PhotoCache:
    """As another start, or another job, opens it."""
    return open_photo_cache(str(folder / "kept"), max_disk_bytes)


def bodies(cache: PhotoCache, *photos: ImageRef) -> list[bytes | ErrorKind]:
    fetched = [photo.body for photo in cache.fetch(photos, MAX_BYTES)]
    return [body.kind if isinstance(body, ImageError) else body for body in fetched]


def etag(bucket: Bucket, key: str) -> str:
    return bucket.client.head_object(Bucket=bucket.name, Key=key)["ETag"].strip('"')


def test_a_photo_without_a_listed_etag_is_fetched_once_by_each_start(
    tmp_path: Path, bucket: Bucket, faulty_s3: FaultyS3
) -> None:
    photo = ImageRef(bucket.put("a.jpg", b"pixels"))
    for start in (1, 2):
        cache = opened(tmp_path)
        assert [bodies(cache, photo) for _ in range(3)] == [[b"pixels"]] * 3
        assert faulty_s3.count("GET") == start


def test_a_photo_with_a_listed_etag_is_fetched_once_for_all_starts(
    tmp_path: Path, bucket: Bucket, faulty_s3: FaultyS3
) -> None:
    photo = ImageRef(bucket.put("a.jpg", b"pixels"), etag(bucket, "a.jpg"))
    for _ in range(3):
        assert bodies(opened(tmp_path), photo) == [b"pixels"]
    assert faulty_s3.count("GET") == 1


def test_a_photo_that_is_not_the_listed_one_is_changed_whatever_is_kept(
    tmp_path: Path, bucket: Bucket
) -> None:
    uri = bucket.put("a.jpg", b"annotated")
    annotated = ImageRef(uri, etag(bucket, "a.jpg"))
    assert bodies(opened(tmp_path), annotated) == [b"annotated"]
    bucket.put("a.jpg", b"another")
    assert bodies(opened(tmp_path), annotated) == [b"annotated"]  # what the boxes are for
    assert bodies(opened(tmp_path), ImageRef(uri)) == [b"another"]
    assert bodies(opened(tmp_path), annotated) == [ErrorKind.CHANGED]


def test_a_photo_stays_what_it_was_at_its_first_fetch_or_is_changed(
    tmp_path: Path, bucket: Bucket
) -> None:
    photo = ImageRef(bucket.put("a.jpg", b"first"))
    keeping, not_keeping = opened(tmp_path), opened(tmp_path, 0)
    for cache in (keeping, not_keeping):
        assert bodies(cache, photo) == [b"first"]
    bucket.put("a.jpg", b"second")
    assert bodies(keeping, photo) == [b"first"]
    assert bodies(not_keeping, photo) == [ErrorKind.CHANGED]


def test_a_file_of_a_disk_is_not_kept_but_it_has_to_stay_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"first")
    cache = opened(tmp_path)
    assert bodies(cache, ImageRef(str(file))) == [b"first"]
    assert not (tmp_path / "kept").exists()
    file.write_bytes(b"longer than before")
    assert bodies(cache, ImageRef(str(file))) == [ErrorKind.CHANGED]


def test_photos_that_an_earlier_start_has_kept_otherwise_are_told_of(
    tmp_path: Path, bucket: Bucket
) -> None:
    photos = [ImageRef(bucket.put(f"{i}.jpg", b"first")) for i in range(3)]
    earlier = opened(tmp_path)
    bodies(earlier, *photos)
    assert earlier.take_notes() == []
    for key in ("1.jpg", "2.jpg"):
        bucket.put(key, b"second")
    later = opened(tmp_path)
    for _ in range(2):
        assert bodies(later, *photos) == [b"first", b"second", b"second"]
    [told] = later.take_notes()
    assert "warning: 2 photos are not those that an earlier start has kept, for example " in told
    assert f"{bucket.name}/1.jpg" in told
    assert later.take_notes() == []


def test_a_damaged_file_is_fetched_again(
    tmp_path: Path, bucket: Bucket, faulty_s3: FaultyS3
) -> None:
    photo = ImageRef(bucket.put("a.jpg", b"pixels"))
    cache = opened(tmp_path)
    bodies(cache, photo)
    [file] = [path for path in (tmp_path / "kept").rglob("*") if len(path.name) == 64]
    file.write_bytes(file.read_bytes().replace(b"pix", b"pox"))
    assert [bodies(cache, photo) for _ in range(2)] == [[b"pixels"]] * 2
    assert faulty_s3.count("GET") == 2


def test_what_cannot_be_fetched_is_asked_for_again(tmp_path: Path, bucket: Bucket) -> None:
    cache, photo = opened(tmp_path), ImageRef(f"s3://{bucket.name}/late.jpg")
    assert bodies(cache, photo) == [ErrorKind.GONE]
    bucket.put("late.jpg", b"here")
    assert bodies(cache, photo) == [b"here"]


def test_a_full_disk_is_told_of_once_and_the_photos_come_all_the_same(
    tmp_path: Path, bucket: Bucket, faulty_s3: FaultyS3
) -> None:
    photos = [ImageRef(bucket.put(f"{i}.jpg", bytes([i]) * 50_000)) for i in range(8)]
    with mounted(tmp_path / "small", "200k") as small:
        cache = PhotoCache(DiskCache(small / "kept", 10**9))
        for _ in range(3):
            assert bodies(cache, *photos) == [bytes([i]) * 50_000 for i in range(8)]
        [told] = cache.take_notes()
        num_kept = len([path for path in small.rglob("*") if len(path.name) == 64])
    assert f"not kept in {small / 'kept'} (No space left on device), and are fetched in" in told
    assert 1 <= num_kept <= 4
    assert faulty_s3.count("GET") == 8 + 2 * (8 - num_kept)


def test_the_limit_is_told_of_once(tmp_path: Path, bucket: Bucket) -> None:
    photos = [ImageRef(bucket.put(f"{i}.jpg", bytes(1000))) for i in range(4)]
    cache = opened(tmp_path, 2500)
    for _ in range(2):
        assert bodies(cache, *photos) == [bytes(1000)] * 4
    [told] = cache.take_notes()
    assert "(what --max_disk_bytes allows is taken), and are fetched in every epoch" in told


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "kept").write_text("a file")
    cache = opened(tmp_path)
    assert bodies(cache, ImageRef(bucket.put("a.jpg", b"pixels"))) == [b"pixels"]
    [told] = cache.take_notes()
    assert "further photos are not kept in" in told


def test_the_second_epoch_of_a_table_larger_than_memory_sends_no_get_nor_does_its_validation(
    tmp_path: Path,
    bucket: Bucket,
    faulty_s3: FaultyS3,
    settings: DetectorSettings,
    tiny_checkpoint: bytes,
) -> None:
    photos = [cv2.imencode(".png", np.full((32, 32, 3), grey, np.uint8))[1] for grey in range(6)]
    uris = [bucket.put(f"{i}.png", photo.tobytes()) for i, photo in enumerate(photos)]
    table = training_table([row(uri, [[0, 0, 8, 8]], [0]) for uri in uris], ["cat", "dog", "bird"])
    cache = opened(tmp_path)
    loader = BatchLoader(
        table, (32, 32), "official", max_cache_bytes=2 * 3 * 32 * 32, threads=1, fetch=cache.fetch
    )
    epochs = [torch.cat([b.canvases for b in loader.iterate(np.arange(6).reshape(3, 2))])]
    assert faulty_s3.count("GET", "*.png") == 6
    epochs += [torch.cat([b.canvases for b in loader.iterate(np.arange(6).reshape(3, 2))])]
    validate(tiny_checkpoint, table, settings, cache.fetch)
    assert faulty_s3.count("GET", "*.png") == 6
    assert torch.equal(*epochs)
    assert epochs[0][:, 0, 0, 0].tolist() == list(range(6))


@pytest.mark.parametrize("cache_dir", [None, "kept"])
def test_photos_are_kept_in_the_users_cache_folder_unless_said_otherwise(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, cache_dir: str | None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    bodies(open_photo_cache(cache_dir, None), ImageRef(bucket.put("a.jpg", b"pixels")))
    folder = tmp_path / (cache_dir or "cache/yolox-ray/photos")
    assert (folder / "usage").exists()
    assert folder.stat().st_mode & 0o777 == 0o700
