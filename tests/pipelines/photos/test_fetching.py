import os
from pathlib import Path

import pytest

from pipelines.photos.errors import ImageError
from pipelines.photos.fetching import ImageRef, fetch_images

MAX_BYTES = 100_000


def _outcomes(images: list[ImageRef]) -> list[bytes | str]:
    bodies = fetch_images(images, MAX_BYTES)
    return [str(body.kind) if isinstance(body, ImageError) else body for body in bodies]


def test_objects_come_in_the_order_asked_for_and_odd_keys_to_the_letter(
    bucket, odd_archive
) -> None:
    keys = list(odd_archive)
    uris = [bucket.put(key, str(number).encode()) for number, key in enumerate(keys)]
    for _ in range(2):  # the bucket is known the second time, and asked in another way
        assert _outcomes([ImageRef(uri) for uri in uris]) == [
            str(number).encode() for number in range(len(keys))
        ]


@pytest.mark.parametrize("is_known", [False, True])
def test_what_s3_will_not_give_is_a_typed_error_and_costs_no_neighbour(
    bucket, is_known: bool
) -> None:
    good = bucket.put("good.jpg", b"good")
    if is_known:
        assert _outcomes([ImageRef(good)]) == [b"good"]
    large = bucket.put("large.jpg", bytes(MAX_BYTES + 1))
    overwritten = bucket.put("overwritten.jpg", b"new")
    images = [
        ImageRef(good),
        ImageRef(f"s3://{bucket.name}/absent.jpg"),
        ImageRef("s3://no-such-bucket-here/x.jpg"),
        ImageRef(large),
        ImageRef(large, size_bytes=MAX_BYTES + 1),
        ImageRef(overwritten, etag="0" * 32),
        ImageRef(good, etag="755f85c2723bb39381c7379a604160d8"),  # md5 of "good"
    ]
    assert _outcomes(images) == [
        b"good",
        "gone",
        "gone",
        "too_large",
        "too_large",
        "changed",
        b"good",
    ]


def test_what_a_disk_will_not_give_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(b"good")
    (tmp_path / "large.jpg").write_bytes(bytes(MAX_BYTES + 1))
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names = ["good.jpg", "large.jpg", "link.jpg", "absent.jpg", "."]
    images = [ImageRef(str(tmp_path / name)) for name in names]
    assert _outcomes(images) == [b"good", "too_large", "gone", "gone", "io_error"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_denied(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"1")
    (tmp_path / "secret.jpg").chmod(0)
    assert _outcomes([ImageRef(str(tmp_path / "secret.jpg"))]) == ["denied"]


def test_a_uri_of_another_scheme_is_an_error_of_its_row() -> None:
    assert _outcomes([ImageRef("https://host/x.jpg")]) == ["io_error"]
