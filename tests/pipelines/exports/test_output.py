"""The output is there whole or not at all, on a disk and in S3, and photos keep apart."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import PrepareConfig, prepare
from pipelines.errors import InputError
from pipelines.exports import ExportConfig, Exported, export_table, naming, photos
from pipelines.exports.output import new_output
from pipelines.storage.folder import Folder
from tests.faulty_s3 import FaultyS3, Rule, access_denied, slow_down
from tests.pipelines.exports.conftest import Archive, read_json

FORMATS = ["coco", "yolo", "voc", "labelstudio", "megadetector", "csv"]


def export(archive: Archive, format: Any, output: str, **more: Any) -> Exported:
    config = ExportConfig(table=archive.table.uri, format=format, output=output, **more)
    return export_table(config)


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_to_s3_has_the_files_of_one_to_a_disk(
    archive: Archive, tmp_path: Path, bucket: Any, format: str
) -> None:
    on_disk, in_s3 = tmp_path / "out", Folder(f"s3://{bucket.name}/some/out")
    for output in (str(on_disk), in_s3.uri):
        export(archive, format, output, copy_photos=format != "labelstudio")
    names = Folder(str(on_disk)).list()
    assert in_s3.list() == names
    for name in names:
        assert in_s3.read(name) == (on_disk / name).read_bytes()


def test_photos_are_copied_from_s3_to_s3(archive: Archive, bucket: Any, labelled_run: Any) -> None:
    made = labelled_run(num_images=10)
    body = archive.photos.read(archive.photos.list()[0])
    etag = bucket.client.put_object(Bucket=bucket.name, Key="0", Body=body)["ETag"].strip('"')
    for row in [row for part in (*made.images.values(), *made.detections.values()) for row in part]:
        key = row["image_uri"].removeprefix("s3://")
        row["image_uri"] = bucket.put(key, body)
        row |= {"etag": etag, "size_bytes": len(body)} if "etag" in row else {}
    table = Folder(f"s3://{bucket.name}/labels")
    made.write(table)
    output = Folder(f"s3://{bucket.name}/out")
    exported = export(Archive(table, table), "voc", output.uri, copy_photos=True)
    assert exported.not_copied == 0
    assert len(output.list("JPEGImages")) == len(output.list("Annotations")) == 8
    assert {output.read(name) for name in output.list("JPEGImages")} == {body}


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_that_is_not_empty_is_refused_and_left_as_it_is(
    archive: Archive, tmp_path: Path, bucket: Any, format: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("keep")
    bucket.put("out/mine", b"keep")
    for output in (str(tmp_path / "out"), str(tmp_path / "out/mine"), f"s3://{bucket.name}/out"):
        with pytest.raises(InputError, match="is not empty"):
            export(archive, format, output)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert Folder(f"s3://{bucket.name}").list() == ["out/mine"]


def test_an_empty_folder_and_a_longer_name_are_no_obstacle(
    archive: Archive, tmp_path: Path, bucket: Any
) -> None:
    (tmp_path / "out").mkdir()
    bucket.put("output/mine", b"of another")
    for output in (str(tmp_path / "out"), f"s3://{bucket.name}/out"):
        export(archive, "coco", output)
        assert Folder(output).list() == ["failed.csv", "instances.json"]


def test_nothing_is_left_on_a_disk_of_an_export_that_fails(tmp_path: Path) -> None:
    too_long = "n" * 256  # for any file system
    with pytest.raises(InputError, match="cannot be written"), new_output(f"{tmp_path}/out") as out:
        out.write_all([("labels/good.txt", b"written"), (f"labels/{too_long}", b"refused")])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_in_s3_of_an_export_that_fails(
    archive: Archive, bucket: Any, faulty_s3: FaultyS3
) -> None:
    denied = faulty_s3.add(Rule(access_denied, method="PUT", key="*data.yaml"))
    with pytest.raises(InputError, match="cannot be written"):
        export(archive, "yolo", f"s3://{bucket.name}/out")
    assert faulty_s3.struck(denied) == 1
    assert faulty_s3.count("PUT", "*labels/*") == 8
    assert Folder(f"s3://{bucket.name}").list() == []


def test_a_large_file_that_s3_refuses_is_not_left_in_part(
    archive: Archive, bucket: Any, faulty_s3: FaultyS3
) -> None:
    for method in ("PUT", "POST"):
        faulty_s3.add(Rule(access_denied, method=method, key="*instances.json"))
    with pytest.raises(InputError, match="cannot be written"):
        export(archive, "coco", f"s3://{bucket.name}/out")
    assert Folder(f"s3://{bucket.name}").list() == []


def test_an_s3_that_stumbles_costs_time_only(
    archive: Archive, bucket: Any, faulty_s3: FaultyS3
) -> None:
    faulty_s3.add(Rule(slow_down, method="PUT", times=6))
    export(archive, "yolo", f"s3://{bucket.name}/out")
    assert len(Folder(f"s3://{bucket.name}/out/labels").list()) == 8


def test_photos_of_one_name_keep_apart_and_a_copy_has_the_same_name_every_time(
    archive: Archive, tmp_path: Path
) -> None:
    for output in ("one", "two"):
        export(archive, "coco", str(tmp_path / output), copy_photos=True)
    one, two = (Folder(str(tmp_path / output / "images")) for output in ("one", "two"))
    assert one.list() == two.list()
    assert len(one.list()) == len(archive.labelled) == 8
    assert sum(name.startswith("0_ü-") for name in one.list()) == 2  # of 2026-10 and of 2026-11
    images = read_json(tmp_path / "one/instances.json")["images"]
    for image in images:
        assert one.read(image["file_name"]) == Path(image["coco_url"]).read_bytes()


def test_names_of_copies_are_tame_whatever_the_key() -> None:
    name = naming.copied_name("s3://b/../a b?*\n.jpg")
    assert name.startswith("a_b___-")
    assert name.endswith(".jpg")
    assert len(name) == len("a_b___-.jpg") + 16
    assert len(naming.copied_name("s3://b/" + "ü" * 1000).encode()) <= 255
    assert naming.copied_name("s3://b/.jpg").startswith(".jpg-")
    assert naming.copied_name("s3://b/x/1.jpg") != naming.copied_name("s3://b/y/1.jpg")


def test_a_photo_that_is_gone_or_was_changed_is_a_failed_image_of_the_export(
    archive: Archive, tmp_path: Path
) -> None:
    gone, changed, *_ = [uri for uri, found in sorted(archive.labelled.items()) if found]
    Path(gone).unlink()
    Path(changed).write_bytes(b"another")
    exported = export(archive, "yolo", str(tmp_path / "out"), copy_photos=True)
    assert exported.not_copied == 2
    assert (exported.counts.photos, exported.counts.failed) == (10, 4)
    assert len(Folder(f"{tmp_path}/out/labels").list()) == 6
    assert len(Folder(f"{tmp_path}/out/images").list()) == 6
    assert len((tmp_path / "out/train.txt").read_text().splitlines()) == 6
    told = (tmp_path / "out/failed.csv").read_text()
    assert f'"{gone}","night","gone",' in told
    assert f'"{changed}","night","changed",' in told
    config = PrepareConfig(source=f"{tmp_path}/out", split="train", output=f"{tmp_path}/a.parquet")
    assert prepare(config).faults == []


@pytest.mark.parametrize("format", ["yolo", "voc"])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/1.jpg", "a/1.png"], r"a/1\.jpg and .*a/1\.png differ in their suffix only"),
        (["a/1.jpg", "../../etc/1.jpg"], "no name that this format can use"),
        (["a/1.jpg", "a//1.jpg"], "no name that this format can use"),
        (["a/1.jpg", "a/1\n.jpg"], "no name that this format can use"),
        (["a/1.jpg", "b/images/1.jpg"], "no name that this format can use"),
    ],
)
def test_names_that_a_file_of_labels_cannot_have_are_refused_with_a_way_out(
    labelled_run: Any, tmp_path: Path, format: str, names: list[str], said: str
) -> None:
    made = labelled_run(num_images=2)
    for row in [*made.images[0], *made.detections[0]]:
        row["image_uri"] = f"s3://photos/{names[int(row['image_uri'][-9:-4])]}"
    table = Folder(str(tmp_path / "labels"))
    made.write(table)
    with pytest.raises(InputError, match=said) as caught:
        export(Archive(table, table), format, str(tmp_path / "out"))
    assert "--copy_photos" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_photos_are_held_in_memory_a_handful_at_a_time(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "MAX_PHOTOS_AT_ONCE", 3)
    seen: list[int] = []
    config = ExportConfig(
        table=archive.table.uri, format="coco", output=str(tmp_path / "out"), copy_photos=True
    )
    export_table(config, seen.append)
    assert seen == [3, 6, 8]


def test_readers_never_see_a_part_of_an_export(archive: Archive, tmp_path: Path) -> None:
    seen: list[bool] = []

    def look(_: int) -> None:
        seen.append((tmp_path / "out").exists())

    config = ExportConfig(
        table=archive.table.uri, format="coco", output=str(tmp_path / "out"), copy_photos=True
    )
    export_table(config, look)
    assert seen == [False]
    assert (tmp_path / "out/instances.json").exists()
