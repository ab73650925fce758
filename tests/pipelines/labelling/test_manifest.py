import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE

import pyarrow as pa
import pytest

from benchmarks.list_server import list_server
from pipelines.errors import InputError
from pipelines.labelling import manifest as manifests
from pipelines.labelling.listing import Listing
from pipelines.labelling.manifest import read_manifest, read_part, write_manifest
from pipelines.storage.folder import Folder
from pipelines.tables.query import Views
from pipelines.tables.schema import LISTED, MANIFEST
from tests.conftest import ROOT


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
    [(1, 1), (32, 1), (33, 2), (600, 16), (16 * 256, 16), (16 * 256 + 1, 17)],
)
def test_a_small_archive_is_cut_into_sixteen_parts_or_parts_of_32(
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
        yield from _listing(_numbers(2000)).tables  # of which parts are written by then
        raise InputError("the bucket is gone")

    for may_repeat in (False, True):
        with pytest.raises(InputError, match="the bucket is gone"):
            write_manifest(Listing(tables(), may_repeat), folder, 10)
        assert folder.list() == []


class _KilledError(Exception):
    pass


def _objects(uris: list[str], killed_after: int | None = None) -> Listing:
    """As of an S3 prefix, tables of seven, each with another name left out before it."""

    def after(last_uri: str, left_out: Counter[str]) -> Listing:
        return listing([uri for uri in uris if uri > last_uri], Counter(left_out))

    def listing(uris: list[str], left_out: Counter[str]) -> Listing:
        def tables() -> Iterator[pa.Table]:
            for number, table in enumerate(_listing(uris).tables):
                if number == killed_after:
                    raise _KilledError
                left_out[".txt"] += 1
                yield table

        return Listing(tables(), may_repeat=False, left_out=left_out, after=after)

    return listing(uris, Counter())


@pytest.mark.parametrize("tables", [0, 1, 40, 140])
@pytest.mark.parametrize("labelled", [None, _labelled([("00003", "of 00003", "r1")])])
def test_a_listing_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    monkeypatch, tmp_path: Path, tables: int, labelled: Views | None
) -> None:
    monkeypatch.setattr(manifests, "ROWS_PER_TABLE", 7)
    folders = {name: Folder(str(tmp_path / name)) for name in ("whole", "killed")}
    uris = _numbers(1000)
    whole = write_manifest(_objects(uris), folders["whole"], 10, labelled)
    with pytest.raises(_KilledError):
        write_manifest(_objects(uris, tables), folders["killed"], 10, labelled)
    seen: list[str] = []
    went_on = write_manifest(
        _objects(uris), folders["killed"], 10, labelled, lambda found: seen.append(found.last_uri)
    )
    assert went_on == whole
    assert folders["killed"].list() == folders["whole"].list()
    read = [read_manifest(folder).to_table() for folder in folders.values()]
    assert read[0].equals(read[1])
    assert whole.listed == 1000
    done = 7 * (tables // 8 * 8 if labelled else tables)  # eight tables are looked up at a time
    assert seen[0] > uris[max(done - 1, 0)]


def test_a_listing_of_something_else_is_not_gone_on_with(monkeypatch, folder: Folder) -> None:
    monkeypatch.setattr(manifests, "ROWS_PER_TABLE", 7)
    with pytest.raises(_KilledError):
        write_manifest(_objects(_numbers(1000), 100), folder, 10, decided_by="these weights")
    assert len(folder.list()) > 1
    summary = write_manifest(_objects(_numbers(20)), folder, 10, decided_by="others")
    assert (summary.listed, folder.list()) == (20, ["part-000000.parquet"])


_LIST = """
import sys
from pipelines.labelling import list_source, write_manifest
from pipelines.storage import Folder
listing, folder = list_source("s3://bucket/photos/"), Folder(sys.argv[1])
write_manifest(listing, folder, 100, watch=lambda found: print(found.listed, flush=True))
"""


def test_a_process_that_is_killed_while_it_lists_a_prefix_costs_what_it_had_not_saved(
    folder: Folder, tmp_path: Path
) -> None:
    keys = [f"photos/{number:06d}.{'jpg' if number % 3 else 'txt'}" for number in range(150_000)]
    (tmp_path / "names").write_text("\n".join(keys))
    with list_server(tmp_path / "names", delay_s=0.1) as url:
        environment = {**os.environ, "AWS_ENDPOINT_URL": url, **_KEYS}
        command = [sys.executable, "-c", _LIST, folder.uri]
        with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=PIPE, text=True) as first:
            assert first.stdout is not None
            assert [first.stdout.readline() for _ in range(2)] == ["16384\n", "32768\n"]
            first.kill()
        second = subprocess.run(command, env=environment, cwd=ROOT, stdout=PIPE, check=True)
    assert int(second.stdout.split()[0]) >= 2 * 16384
    listed = [f"s3://bucket/{key}" for key in keys if key.endswith("jpg")]
    assert read_manifest(folder).to_table()["image_uri"].to_pylist() == listed


_KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
