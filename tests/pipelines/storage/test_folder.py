from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder, read_bytes
from pipelines.storage.uris import normalise_uri, split_s3_uri


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("", "empty"),
        ("http://host/x", "http:// is not supported"),
        ("simplecache::s3://bucket/x", "is not supported"),
        ("s3:///key", "no bucket"),
        ("s3://AKIA:secret@bucket/x", "credentials inside an s3:// URI are refused"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_with_the_reason(uri: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        normalise_uri(uri)
    assert "secret" not in str(caught.value)


def test_an_s3_key_is_taken_to_the_letter() -> None:
    assert split_s3_uri("s3://b/a b/#?%20[*]\n") == ("b", "a b/#?%20[*]\n")


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "table"))
    return Folder(f"s3://{request.getfixturevalue('bucket').name}/table")


def test_a_folder_reads_back_what_was_written(folder: Folder) -> None:
    assert folder.list() == []
    folder.write("runs/a.json", b"1")
    folder.write("runs/a.json", b"2")
    folder.write("images/b", b"3")
    assert folder.read("runs/a.json") == b"2"
    assert folder.list() == ["images/b", "runs/a.json"]
    assert folder.list("runs") == ["runs/a.json"]
    assert folder.below("runs").list() == ["a.json"]
    folder.delete("images/b")
    assert not folder.exists("images/b")
    assert folder.exists("runs/a.json")


def test_a_file_is_created_unless_there_is_another_one(folder: Folder) -> None:
    assert folder.create("runs/lease", b"mine")
    assert not folder.create("runs/lease", b"theirs")
    assert folder.read("runs/lease") == b"mine"
    assert folder.list() == ["runs/lease"]


def test_a_file_is_replaced_if_it_holds_what_was_expected(folder: Folder) -> None:
    assert not folder.replace("runs/lease", b"new", expected=b"old")
    folder.write("runs/lease", b"old")
    assert not folder.replace("runs/lease", b"new", expected=b"other")
    assert folder.read("runs/lease") == b"old"
    assert folder.replace("runs/lease", b"new", expected=b"old")
    assert folder.read("runs/lease") == b"new"
    assert folder.list() == ["runs/lease"]


def test_of_many_that_create_or_replace_a_file_at_once_one_succeeds(tmp_path: Path) -> None:
    # On a disk: S3 promises it, and the tests' S3 server looks and writes in two steps.
    folder = Folder(str(tmp_path))
    names = [b"%d" % number for number in range(16)]
    with ThreadPoolExecutor(len(names)) as pool:
        created = list(pool.map(lambda name: folder.create("lease", name), names))
        holder = names[created.index(True)]
        replaced = list(pool.map(lambda name: folder.replace("lease", name + b"'", holder), names))
    assert created.count(True) == 1
    assert replaced.count(True) == 1
    assert folder.read("lease") == names[replaced.index(True)] + b"'"


def test_partitions_of_the_path_become_columns(folder: Folder) -> None:
    folder.write_table("images/date=2026-11-21/run=r1/part-0.parquet", pa.table({"n": [1, 2]}))
    schema = pa.schema([("n", pa.int64()), ("run", pa.string()), ("date", pa.date32())])
    rows = folder.dataset(folder.list(), schema).to_table().to_pylist()
    assert [(row["n"], row["run"], str(row["date"])) for row in rows] == [
        (1, "r1", "2026-11-21"),
        (2, "r1", "2026-11-21"),
    ]


def test_a_dataset_is_read_without_python(folder: Folder) -> None:
    # A filesystem that wraps fsspec ("py::…") deadlocks with DuckDB, once in some hundred reads.
    folder.write_table("part-0.parquet", pa.table({"n": [1]}))
    dataset = folder.dataset(folder.list(), pa.schema([("n", pa.int64())]))
    assert dataset.filesystem.type_name in ("local", "s3")


def test_no_files_make_an_empty_dataset(folder: Folder) -> None:
    assert folder.dataset([], pa.schema([("n", pa.int64())])).count_rows() == 0


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("record.json", b"old")
    with pytest.raises(TypeError):
        folder.write("record.json", "not bytes")  # type: ignore[arg-type]
    assert folder.read("record.json") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    Folder(str(tmp_path)).write("written", b"")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights\.pth cannot be read"):
        read_bytes(str(tmp_path / "weights.pth"))
