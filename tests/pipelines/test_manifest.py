import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InputError
from pipelines.manifest import read_manifest, write_manifest
from pipelines.schema import MANIFEST
from pipelines.storage import Folder


@pytest.fixture
def manifest(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "manifest"))


def _uris(manifest: Folder) -> list[str]:
    return read_manifest(manifest).to_table()["image_uri"].to_pylist()


def test_a_folder_is_listed_whole_whatever_its_files_are_called(tmp_path, manifest) -> None:
    names = ["a.jpg", "b/c d.PNG", "b/.hidden", "notes.txt", "größe#%.jpg"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    assert write_manifest(str(tmp_path / "photos"), manifest).listed == len(names)
    assert sorted(_uris(manifest)) == sorted(str(tmp_path / "photos" / name) for name in names)
    assert read_manifest(manifest).to_table()["size_bytes"].to_pylist() == [5] * len(names)


def test_a_pipe_in_a_folder_is_no_file(tmp_path, manifest) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"1")
    os.mkfifo(tmp_path / "photos/pipe")
    assert write_manifest(str(tmp_path / "photos"), manifest).listed == 1


def test_a_prefix_is_listed_over_many_pages_without_folder_markers(bucket, manifest) -> None:
    keys = {f"photos/{number:04d}.jpg" for number in range(1100)}  # a page holds 1,000
    for key in keys:
        bucket.put(key, b"123")
    bucket.put("photos/", b"")
    bucket.put("other/x.jpg", b"1")
    source = f"s3://{bucket.name}/photos/"
    assert write_manifest(source, manifest).listed == len(keys)
    assert set(_uris(manifest)) == {f"s3://{bucket.name}/{key}" for key in keys}
    first = read_manifest(manifest).head(1).to_pylist()[0]
    assert first["size_bytes"] == 3
    assert first["etag"] == "202cb962ac59075b964b07152d234b70"  # md5 of "123"


def test_odd_keys_are_listed_to_the_letter(bucket, manifest, odd_archive) -> None:
    uris = {bucket.put(key, b"1") for key in odd_archive}
    write_manifest(f"s3://{bucket.name}", manifest)
    assert set(_uris(manifest)) == uris


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_manifest_is_a_source_and_its_duplicates_are_counted(tmp_path, manifest, suffix) -> None:
    uris = ["s3://b/2.jpg", "s3://b/1.jpg", "s3://b/2.jpg", "s3://b/3, 4.jpg"]
    source = tmp_path / f"todo.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"image_uri": uris, "other": [1, 2, 3, 4]}), source)
    else:
        source.write_text("image_uri,etag\n" + "".join(f'"{uri}","""e"""\n' for uri in uris))
    summary = write_manifest(str(source), manifest)
    assert (summary.listed, summary.duplicates) == (3, 1)
    table = read_manifest(manifest).to_table()
    assert table.schema.equals(MANIFEST)
    assert table["image_uri"].to_pylist() == ["s3://b/2.jpg", "s3://b/1.jpg", "s3://b/3, 4.jpg"]
    assert set(table["etag"].to_pylist()) == ({None} if suffix == "parquet" else {"e"})


def test_listing_again_replaces_a_manifest_that_was_not_finished(tmp_path, manifest) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"1")
    manifest.write("part-00007.parquet", b"left behind")
    write_manifest(str(tmp_path / "photos"), manifest)
    assert manifest.list() == ["part-00000.parquet"]


def test_a_source_that_cannot_be_labelled_is_refused_with_the_reason(
    tmp_path, manifest, bucket
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.csv").write_text("url\nx\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    complaints = {
        str(tmp_path / "nowhere"): "is no folder",
        str(tmp_path / "empty"): "holds no files",
        str(tmp_path / "wrong.csv"): "has the columns url: a manifest needs a column image_uri",
        str(tmp_path / "broken.parquet"): "is not a readable manifest",
        str(tmp_path / "absent.csv"): "cannot be read",
        "s3://no-such-bucket-here/x": "cannot be listed: .*NoSuchBucket",
        f"s3://{bucket.name}/nothing/": "holds no files",
    }
    for source, complaint in complaints.items():
        with pytest.raises(InputError, match=complaint):
            write_manifest(source, manifest)
