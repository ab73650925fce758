import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InputError
from pipelines.labelling.listing import list_source
from pipelines.storage.folder import Folder
from pipelines.tables.schema import LISTED
from tests.faulty_s3 import Rule, access_denied


def _listed(source: object) -> pa.Table:
    return pa.concat_tables([LISTED.empty_table(), *list_source(str(source)).tables])


def _uris(source: object) -> list[str]:
    return _listed(source)["image_uri"].to_pylist()


def test_a_folder_is_listed_whole_whatever_its_photos_are_called(tmp_path) -> None:
    names = ["a.jpg", "b/c d.PNG", "b/.hidden", "without a suffix", "größe#%.jpg"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    listed = _listed(tmp_path / "photos")
    expected = sorted(str(tmp_path / "photos" / name) for name in names)
    assert sorted(listed["image_uri"].to_pylist()) == expected
    assert listed["size_bytes"].to_pylist() == [5] * len(names)


def test_a_file_that_was_written_again_has_another_etag(tmp_path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"12345")
    [first] = _listed(tmp_path)["etag"].to_pylist()
    assert _listed(tmp_path)["etag"].to_pylist() == [first]
    photo.write_bytes(b"54321")
    os.utime(photo, ns=(0, 0))
    assert _listed(tmp_path)["etag"].to_pylist() != [first]


def test_a_pipe_in_a_folder_is_no_file(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    os.mkfifo(tmp_path / "pipe")
    assert _uris(tmp_path) == [str(tmp_path / "a.jpg")]


def test_links_to_folders_are_followed(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.jpg").write_bytes(b"1")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/link").symlink_to(tmp_path / "elsewhere")
    assert _uris(tmp_path / "photos") == [str(tmp_path / "photos/link/a.jpg")]
    (tmp_path / "photos/loop").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"cannot be listed: .* a link to a folder around itself"):
        _uris(tmp_path / "photos")


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/a.jpg").write_bytes(b"1")
    (tmp_path / "shut").mkdir()
    look = os.scandir

    def refuse(path):  # as Linux does to whoever is not root
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed: .*Permission denied: .*shut"):
        _uris(tmp_path)
    with pytest.raises(PermissionError):
        Folder(str(tmp_path)).list()


def test_a_prefix_is_listed_over_many_pages_without_folder_markers(bucket) -> None:
    keys = {f"photos/{number:04d}.jpg" for number in range(1100)}  # a page holds 1,000
    for key in keys:
        bucket.put(key, b"123")
    bucket.put("photos/", b"")
    bucket.put("other/x.jpg", b"1")
    listed = _listed(f"s3://{bucket.name}/photos/")
    assert len(listed) == len(keys)
    assert set(listed["image_uri"].to_pylist()) == {f"s3://{bucket.name}/{key}" for key in keys}
    assert listed["size_bytes"][0].as_py() == 3
    assert listed["etag"][0].as_py() == "202cb962ac59075b964b07152d234b70"  # md5 of "123"


def test_odd_keys_are_listed_to_the_letter(bucket, odd_archive) -> None:
    uris = {bucket.put(key, b"1") for key in odd_archive}
    assert set(_uris(f"s3://{bucket.name}")) == uris


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_manifest_file_is_a_source_whose_images_may_repeat(tmp_path, suffix) -> None:
    uris = ["s3://b/2.jpg", "s3://b/1.jpg", "s3://b/2.jpg", "s3://b/3, 4.jpg"]
    source = tmp_path / f"todo.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"image_uri": uris, "other": [1, 2, 3, 4]}), source)
    else:
        source.write_text("image_uri,etag\n" + "".join(f'"{uri}","""e"""\n' for uri in uris))
    assert list_source(str(source)).may_repeat
    listed = _listed(source)
    assert listed.schema.equals(LISTED)
    assert listed["image_uri"].to_pylist() == uris
    assert set(listed["etag"].to_pylist()) == ({None} if suffix == "parquet" else {"e"})


def test_a_manifest_file_in_s3_is_a_source_too(bucket, tmp_path) -> None:
    bucket.put("todo.csv", b"image_uri\nrelative.jpg\n007\n")
    expected = [os.path.abspath("relative.jpg"), os.path.abspath("007")]
    assert _uris(f"s3://{bucket.name}/todo.csv") == expected


def test_a_source_is_refused_before_its_rows_are_asked_for(tmp_path, bucket) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.csv").write_text("url\nx\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "null.csv").write_text("image_uri,etag\na,1\n,2\n")
    complaints = {
        str(tmp_path / "empty"): "holds no files: nothing to label",
        f"s3://{bucket.name}/nothing/": "holds no files: nothing to label",
        str(tmp_path / "nowhere"): "is no folder",
        str(tmp_path / "wrong.csv"): "has the columns url: a manifest needs a column image_uri",
        str(tmp_path / "broken.parquet"): "is not a readable manifest",
        str(tmp_path / "null.csv"): "has 1 rows without an image_uri",
        str(tmp_path / "absent.csv"): "cannot be read",
        f"s3://{bucket.name}/absent.parquet": "cannot be read",
        "s3://no-such-bucket-here/x": "cannot be listed: .*NoSuchBucket",
    }
    for source, complaint in complaints.items():
        with pytest.raises(InputError, match=complaint):
            list_source(source)


def _photos(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [str(folder / name) for name in names]


def test_of_a_folder_only_photos_are_listed_and_the_rest_is_counted(tmp_path: Path) -> None:
    photo, *_ = _photos(tmp_path, "0.jpg", "0.json", "Thumbs.db", "clip.mp4")
    listing = list_source(str(tmp_path))
    assert pa.concat_tables(listing.tables)["image_uri"].to_pylist() == [photo]
    assert listing.left_out == {".json": 1, ".db": 1, ".mp4": 1}
    with pytest.raises(InputError, match=r"\(1 \.mp4 left out\).*--all_files"):
        list_source(str(tmp_path / "*.mp4"))


def test_one_photo_a_glob_and_a_file_uri_are_sources(tmp_path: Path) -> None:
    a, b, c = _photos(tmp_path, "x/a.jpg", "x/b.jpg", "y/c [1].jpg")
    assert _uris(a) == _uris(f"file://{a}") == [a]
    assert _uris(tmp_path / "*/[ab].jpg") == [a, b]
    assert _uris(tmp_path / "y/c [1].jpg") == [c]  # a name that is there is no glob
    with pytest.raises(InputError, match="holds no files: nothing to label"):
        list_source(str(tmp_path / "*.png"))


def test_a_glob_in_s3_narrows_the_listing(bucket, faulty_s3) -> None:
    wanted = [bucket.put(key, b"x") for key in ("2026-01/a.jpg", "2026-02/b.jpg")]
    for key in ("2025-12/c.jpg", "2026-01/deep/d.jpg", "2026-01/notes.txt"):
        bucket.put(key, b"x")
    elsewhere = Rule(access_denied, when=lambda asked: asked.query.get("prefix") == "")
    faulty_s3.add(elsewhere)
    assert _uris(f"s3://{bucket.name}/2026-*/*.jpg") == wanted
    assert faulty_s3.struck(elsewhere) == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "../photos/0.jpg\n\n../photos/1.jpg\n"),
        ("list.json", '["../photos/0.jpg", "../photos/1.jpg"]'),
        ("images.json", '{"images": [{"file": "../photos/0.jpg"}, {"file": "../photos/1.jpg"}]}'),
        ("coco.json", '{"images": [{"file_name": "../photos/0.jpg"}, "../photos/1.jpg"]}'),
    ],
)
def test_a_list_names_images_relative_to_itself(name: str, text: str, tmp_path: Path) -> None:
    photos = _photos(tmp_path, "photos/0.jpg", "photos/1.jpg")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / name).write_text(text)
    assert _uris(tmp_path / "lists" / name) == photos


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1}', "is no list of images: give a JSON array"),
        ("[1]", "has an entry without a name"),
        ("[", "is no JSON"),
        ("[]", "is empty: nothing to label"),
    ],
)
def test_what_is_no_list_is_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        list_source(str(path))


def _inventory(bucket, kind: str, files: dict[str, bytes], schema: str) -> str:
    for key, body in files.items():
        bucket.put(key, body)
    manifest = {
        "sourceBucket": "archive-of-photos",
        "destinationBucket": f"arn:aws:s3:::{bucket.name}",
        "fileFormat": kind,
        "fileSchema": schema,
        "files": [{"key": key} for key in files],
    }
    return bucket.put("inventory/manifest.json", json.dumps(manifest).encode())


INVENTORY = [
    {"image_uri": "s3://archive-of-photos/a b+c.jpg", "etag": "e1", "size_bytes": 10},
    {"image_uri": "s3://archive-of-photos/2026/d.jpg", "etag": "e2", "size_bytes": 20},
]


def test_an_s3_inventory_in_csv_is_a_source_whose_keys_are_decoded(bucket) -> None:
    rows = (
        '"archive-of-photos","a+b%2Bc.jpg","true","false","10","2026-11-01T00:00:00.000Z","e1"\n'
        '"archive-of-photos","gone.jpg","true","true","","2026-11-01T00:00:00.000Z",""\n'
        '"archive-of-photos","old.jpg","false","false","9","2026-11-01T00:00:00.000Z","e0"\n'
        '"archive-of-photos","2026/d.jpg","true","false","20","2026-11-01T00:00:00.000Z","e2"\n'
        '"archive-of-photos","2026/d.json","true","false","5","2026-11-01T00:00:00.000Z","e3"\n'
    )
    schema = "Bucket, Key, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
    files = {"inventory/data/1.csv.gz": gzip.compress(rows.encode())}
    found = _listed(_inventory(bucket, "CSV", files, schema))
    assert found.select(["image_uri", "etag", "size_bytes"]).to_pylist() == INVENTORY
    assert found["last_modified"][0].as_py() == datetime(2026, 11, 1, tzinfo=UTC)


def test_an_s3_inventory_in_parquet_is_a_source_whose_keys_are_as_they_are(bucket) -> None:
    sink = pa.BufferOutputStream()
    columns = {
        "bucket": ["archive-of-photos"] * 4,
        "key": ["a b+c.jpg", "a b+c.jpg", "2026/d.jpg", "gone.jpg"],
        "is_latest": [True, False, True, True],
        "is_delete_marker": [False, False, False, True],
        "size": [10, 9, 20, None],
        "e_tag": ["e1", "e0", "e2", None],
    }
    pq.write_table(pa.table(columns), sink)
    files = {"inventory/data/1.parquet": sink.getvalue().to_pybytes()}
    found = _listed(_inventory(bucket, "Parquet", files, "message s3.inventory {...}"))
    assert found.select(["image_uri", "etag", "size_bytes"]).to_pylist() == INVENTORY


def test_an_inventory_of_another_kind_is_refused(bucket) -> None:
    with pytest.raises(InputError, match=r"in ORC .* must be in CSV or Parquet"):
        list_source(_inventory(bucket, "ORC", {"x.orc": b""}, "struct<...>"))
    with pytest.raises(InputError, match="without Size: let it have these fields"):
        list_source(_inventory(bucket, "CSV", {"1.csv.gz": gzip.compress(b"a,b\n")}, "Bucket, Key"))
