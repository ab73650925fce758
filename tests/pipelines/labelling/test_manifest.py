from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import InputError
from pipelines.labelling import manifest as manifests
from pipelines.labelling.listing import Listing
from pipelines.labelling.manifest import read_manifest, read_part, write_manifest
from pipelines.storage.folder import Folder
from pipelines.tables.query import Views
from pipelines.tables.schema import LISTED, MANIFEST


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "manifest"))


def _listing(uris: list[str], size_bytes: int | None = 5, may_repeat: bool = False) -> Listing:
    rows = [{"image_uri": uri, "etag": f"of {uri}", "size_bytes": size_bytes} for uri in uris]
    tables = [pa.Table.from_pylist(rows[i : i + 7], LISTED) for i in range(0, len(rows), 7)]
    return Listing(iter(tables), may_repeat)


def _numbers(count: int) -> list[str]:
    return [f"{number:05d}" for number in range(count)]


def _parts(folder: Folder, count: int) -> list[list[str]]:
    return [read_part(folder, part)["image_uri"].to_pylist() for part in range(count)]


def test_every_image_is_in_one_part_in_listing_order(folder: Folder) -> None:
    uris = _numbers(1000)
    summary = write_manifest(_listing(uris), folder, images_per_part=10)
    assert (summary.listed, summary.duplicates, summary.skipped, summary.parts) == (1000, 0, 0, 100)
    assert folder.list() == ["part-000000.parquet", "part-000001.parquet"]  # 64 parts in each
    assert _parts(folder, 100) == [uris[i : i + 10] for i in range(0, 1000, 10)]
    whole = read_manifest(folder).to_table()
    assert whole.schema.equals(MANIFEST)
    assert whole["part"].to_pylist() == [number // 10 for number in range(1000)]
    assert whole["etag"][999].as_py() == "of 00999"


@pytest.mark.parametrize(
    ("images", "expected_parts"),
    [(1, 1), (8, 1), (9, 2), (415, 16), (16 * 256, 16), (16 * 256 + 1, 17)],
)
def test_a_small_archive_is_cut_into_sixteen_parts_or_parts_of_eight(
    folder: Folder, images: int, expected_parts: int
) -> None:
    summary = write_manifest(_listing(_numbers(images)), folder, images_per_part=256)
    assert summary.parts == expected_parts


def test_a_part_of_large_images_has_fewer(folder: Folder) -> None:
    size = manifests.MAX_PART_BYTES // 3
    summary = write_manifest(_listing(_numbers(400), size), folder, images_per_part=20)
    assert summary.parts == 134  # three in each
    assert _parts(folder, 134)[:2] == [_numbers(6)[:3], _numbers(6)[3:]]


def test_a_size_that_was_not_listed_is_taken_for_that_of_a_photo(folder: Folder) -> None:
    summary = write_manifest(_listing(_numbers(5000), None), folder, images_per_part=300)
    assert summary.parts == 20  # of 256: 128 MiB in pieces of 512 KiB


def test_an_image_larger_than_a_part_is_a_part(folder: Folder) -> None:
    size = manifests.MAX_PART_BYTES + 1
    assert write_manifest(_listing(_numbers(3), size), folder, images_per_part=20).parts == 3


def test_duplicates_are_dropped_and_counted_the_first_one_stays(folder: Folder) -> None:
    uris = ["b", "a", "b", "c", "a"]
    summary = write_manifest(_listing(uris, may_repeat=True), folder, images_per_part=256)
    assert (summary.listed, summary.duplicates) == (3, 2)
    assert _parts(folder, 1) == [["b", "a", "c"]]


def test_a_long_listing_with_duplicates_keeps_its_order(folder: Folder) -> None:
    uris = _numbers(5000)[::-1]
    summary = write_manifest(_listing(uris + uris, may_repeat=True), folder, images_per_part=300)
    assert [uri for part in _parts(folder, summary.parts) for uri in part] == uris


def _labelled(rows: list[tuple[str, str, str]]) -> Views:
    """(image_uri, etag, run) of runs that are the newer the later their name."""
    names = sorted({run for _, _, run in rows})
    images = pa.table(
        {
            "image_uri": [uri for uri, _, _ in rows],
            "etag": [etag for _, etag, _ in rows],
            "run": [run for _, _, run in rows],
            "status": ["failed" if uri == "bad" else "labelled" for uri, _, _ in rows],
        }
    )
    finished = [datetime(2026, 1, 1 + day, tzinfo=UTC) for day in range(len(names))]
    runs = pa.table({"run": names, "finished_at": finished})
    return Views(images=images, detections=images, runs=runs)


def test_what_a_run_has_labelled_is_skipped_and_what_changed_or_failed_is_not(folder) -> None:
    labelled = _labelled(
        [
            ("same", "of same", "r1"),
            ("twice", "of twice", "r2"),
            ("twice", "of twice", "r1"),
            ("changed", "of what it was", "r2"),
            ("bad", "of bad", "r2"),
            ("gone", "of gone", "r2"),
        ]
    )
    listing = _listing(["new", "same", "twice", "changed", "bad"])
    summary = write_manifest(listing, folder, 256, labelled)
    assert (summary.listed, summary.parts) == (5, 1)
    assert summary.skipped_in == {"r1": 1, "r2": 1}
    assert _parts(folder, 1) == [["new", "changed", "bad"]]
    rows = read_manifest(folder).to_table().to_pylist()
    skipped = {row["image_uri"]: row["skipped_in"] for row in rows if row["part"] is None}
    assert skipped == {"same": "r1", "twice": "r2"}


def test_a_listing_of_which_nothing_is_new_has_no_parts(folder: Folder) -> None:
    summary = write_manifest(_listing(["a"]), folder, 256, _labelled([("a", "of a", "r")]))
    assert (summary.listed, summary.skipped, summary.parts) == (1, 1, 0)


def test_listing_again_replaces_a_manifest_that_was_not_finished(folder: Folder) -> None:
    folder.write("part-000007.parquet", b"left behind")
    write_manifest(_listing(["a"]), folder, 256)
    assert folder.list() == ["part-000000.parquet"]


def test_an_error_of_the_listing_is_passed_on_and_leaves_no_manifest(folder: Folder) -> None:
    def tables() -> Iterator[pa.Table]:
        yield from _listing(_numbers(20_000)).tables  # of which parts are written by then
        raise InputError("the bucket is gone")

    for may_repeat in (False, True):
        with pytest.raises(InputError, match="the bucket is gone"):
            write_manifest(Listing(tables(), may_repeat), folder, 256)
        assert folder.list() == []
