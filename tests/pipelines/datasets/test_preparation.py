import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import class_names_of, read_training_table
from pipelines.datasets.preparation import PrepareConfig, prepare, recognise
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

MakePhoto = Callable[..., bytes]

VOC_XML = """<annotation><filename>a.jpg</filename>
<object><name>cat</name><bndbox>
<xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>
<object><name>cat</name><bndbox>
<xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"""
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "lost.jpg"}],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "nobody"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40], "area": 1200},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [10, 20, 30, 40], "area": 1200},
    ],
}


def write_sources(folder: Folder, photo: bytes) -> None:
    """The same cat on a photo of 100 x 80 px in every format, and one fault in each."""
    for name in ("voc/JPEGImages/a.jpg", "yolo/images/a.jpg", "coco/photos/a.jpg"):
        folder.write(name, photo)
    folder.write("voc/Annotations/a.xml", VOC_XML.encode())
    folder.write("yolo/data.yaml", b"train: images\nnames: {7: cat, 8: nobody}")
    folder.write("yolo/labels/a.txt", b"7 0.25 0.5 0.3 0.5\n9 0.25 0.5 0.3 0.5\n")
    folder.write("coco/instances.json", json.dumps(COCO).encode())


SOURCES: dict[str, dict[str, str]] = {
    "voc": {"source": "voc"},
    "yolo": {"source": "yolo/data.yaml", "split": "train"},
    "coco": {"source": "coco/instances.json", "images": "coco/photos"},
}
FAULTS = {
    "voc": ("zero_area", "voc/Annotations/a.xml:4"),
    "yolo": ("unknown_class", "yolo/labels/a.txt:2"),
    "coco": ("missing_image", "coco/instances.json: image 2"),
}


def config_of(folder: Folder, name: str, **more: Any) -> PrepareConfig:
    values: dict[str, Any] = dict(SOURCES[name])
    for key in {"source", "images"} & set(values):
        values[key] = folder.uri_of(values[key])
    return PrepareConfig(**{"output": folder.uri_of(f"{name}.parquet"), **values, **more})


@pytest.fixture
def folder(tmp_path: Path, make_photo: MakePhoto) -> Folder:
    folder = Folder(str(tmp_path))
    write_sources(folder, make_photo(100, 80))
    return folder


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_box_comes_from_every_format_from_a_disk_and_from_s3(
    folder: Folder, bucket, make_photo: MakePhoto, name: str
) -> None:
    on_s3 = Folder(f"s3://{bucket.name}/deep")
    write_sources(on_s3, make_photo(100, 80))
    for place in (folder, on_s3):
        config = config_of(place, name)
        prepared = prepare(config)
        written, class_names = read_training_table(config.output)
        assert written.equals(prepared.table)
        assert class_names[0] == "cat"
        (row,) = written.to_pylist()
        assert row["image_uri"].startswith(place.uri)
        assert (row["width"], row["height"]) == (100, 80)
        assert row["boxes"] == [[pytest.approx(v) for v in (10, 20, 40, 60)]]
        kind, where = FAULTS[name]
        (fault,) = prepared.faults
        assert (fault.kind, fault.where) == (kind, place.uri_of(where))


@pytest.mark.parametrize("name", SOURCES)
def test_strict_names_the_fault_and_writes_nothing(folder: Folder, name: str) -> None:
    kind, where = FAULTS[name]
    with pytest.raises(InputError, match=rf"faults \(1\), {kind} at {folder.uri_of(where)}"):
        prepare(config_of(folder, name, strict=True))
    assert not folder.exists(f"{name}.parquet")


def test_a_class_without_boxes_keeps_its_name(folder: Folder) -> None:
    for name in ("coco", "yolo"):
        assert class_names_of(prepare(config_of(folder, name)).table) == ["cat", "nobody"]


def test_a_source_without_boxes_is_refused_with_its_faults(folder: Folder) -> None:
    folder.write("yolo/labels/a.txt", b"9 0.25 0.5 0.3 0.5\n")
    with pytest.raises(InputError, match=r"1 usable images, faults \(1\).*a\.txt:1"):
        prepare(config_of(folder, "yolo"))
    crowd = COCO["annotations"][0] | {"iscrowd": 1}
    folder.write("coco/instances.json", json.dumps(COCO | {"annotations": [crowd]}).encode())
    with pytest.raises(InputError, match="no boxes to learn from"):
        prepare(config_of(folder, "coco"))


def test_a_source_without_images_is_refused(folder: Folder) -> None:
    empty = {"images": [], "annotations": [], "categories": []}
    folder.write("coco/instances.json", json.dumps(empty).encode())
    with pytest.raises(InputError, match="0 usable images, no faults"):
        prepare(config_of(folder, "coco"))


def test_a_source_is_recognised_by_its_name_or_by_what_it_holds(folder: Folder) -> None:
    folder.write("labels/runs/night.json", b"{}")
    folder.write("other/readme.txt", b"")
    formats = {
        "coco/instances.json": "coco",
        "voc": "voc",
        "yolo": "yolo",
        "yolo/any.yaml": "yolo",
        "labels": "detections",
    }
    for source, expected in formats.items():
        assert recognise(folder.uri_of(source)) == expected
    for source in ("other", "nowhere"):
        with pytest.raises(InputError, match=f"{source}' is none of COCO"):
            recognise(folder.uri_of(source))


def test_a_given_format_is_not_doubted(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"data\.yaml cannot be read"):
        prepare(config_of(folder, "voc", format="yolo", split="train"))


@pytest.mark.parametrize(
    ("name", "flags", "named"),
    [
        ("coco", {"images": ""}, "need --images"),
        ("coco", {"images": "nowhere"}, "holds no photos"),
        ("coco", {"split": "train"}, "--split is for voc and yolo.* read as coco"),
        ("yolo", {"split": ""}, "need --split"),
        ("yolo", {"classes": "cat"}, "--classes is for voc"),
        ("voc", {"run": "night"}, "--run is for detections"),
        ("voc", {"min_score": 0.7}, "--min_score is for detections"),
        ("voc", {"classes": "cat,cat"}, "'cat'"),
        ("voc", {"source": "s3://no-such-bucket/voc", "format": "voc"}, "no-such-bucket"),
    ],
)
def test_flags_that_do_not_go_with_the_source_are_refused(
    folder: Folder, s3_endpoint: str, name: str, flags: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        prepare(config_of(folder, name, **flags))


@pytest.mark.parametrize("wrong", [{"output": "train.json"}, {"min_score": 50}])
def test_a_config_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        PrepareConfig(**{"source": "voc", "output": "train.parquet", **wrong})
