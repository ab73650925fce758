import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import class_names_of, read_training_table
from pipelines.datasets.preparation import PrepareConfig, prepare
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
MEGADETECTOR: dict[str, Any] = {
    "detection_categories": {"1": "cat"},
    "images": [
        {
            "file": "a.jpg",
            "detections": [
                {"category": "1", "conf": 0.9, "bbox": [0.1, 0.25, 0.3, 0.5]},
                {"category": "1", "conf": 0.9, "bbox": [0.1, 0.25, 0, 0.5]},
            ],
        }
    ],
}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "a.jpg"},
        "annotations": [
            {
                "result": [
                    {"id": name, "value": place | {"y": 25, "height": 50, "labels": ["cat"]}}
                    for name, place in {
                        "r": {"x": 10, "width": 30},
                        "f": {"x": 10, "width": 0},
                    }.items()
                ]
            }
        ],
    }
]


def write_sources(folder: Folder, photo: bytes) -> None:
    """The same cat on a photo of 100 x 80 px in every format, and one fault in each."""
    for name in ("voc/JPEGImages/a.jpg", "yolo/images/a.jpg", "coco/photos/a.jpg"):
        folder.write(name, photo)
    for name in ("label_studio", "megadetector", "darknet", "labelimg", "roboflow/train"):
        folder.write(f"{name}/a.jpg", photo)
    folder.write("label_studio/export.json", json.dumps(LABEL_STUDIO).encode())
    folder.write("megadetector/results.json", json.dumps(MEGADETECTOR).encode())
    folder.write("labelimg/a.xml", VOC_XML.encode())
    folder.write("roboflow/train/_annotations.coco.json", json.dumps(COCO).encode())
    folder.write("darknet/obj.data", b"train = train.txt\nnames = obj.names")
    folder.write("darknet/obj.names", b"cat\n")
    folder.write("darknet/train.txt", b"a.jpg\n")
    folder.write("darknet/a.txt", b"0 0.25 0.5 0.3 0.5\n0 0.25 0.5 0.0 0.5\n")
    folder.write("voc/Annotations/a.xml", VOC_XML.encode())
    folder.write("yolo/data.yaml", b"train: images\nnames: {7: cat, 8: nobody}")
    folder.write("yolo/labels/a.txt", b"7 0.25 0.5 0.3 0.5\n7 0.25 0.5 0.0 0.5\n")
    for name in ("coco/instances.json", "lonely/instances.json"):
        folder.write(name, json.dumps(COCO).encode())


SOURCES: dict[str, dict[str, str]] = {
    "voc": {"source": "voc"},
    "yolo": {"source": "yolo/data.yaml", "split": "train"},
    "coco": {"source": "coco/instances.json", "images": "coco/photos"},
    "labelimg": {"source": "labelimg"},
    "darknet": {"source": "darknet"},
    "roboflow": {"source": "roboflow"},
    "label_studio": {"source": "label_studio/export.json"},
    "megadetector": {"source": "megadetector"},
}
FAULTS = {
    "voc": ("zero_area", "voc/Annotations/a.xml:4"),
    "yolo": ("zero_area", "yolo/labels/a.txt:2"),
    "coco": ("missing_image", "coco/instances.json: image 2"),
    "labelimg": ("zero_area", "labelimg/a.xml:4"),
    "darknet": ("zero_area", "darknet/a.txt:2"),
    "roboflow": ("missing_image", "roboflow/train/_annotations.coco.json: image 2"),
    "label_studio": ("zero_area", "label_studio/export.json: task 1: region f"),
    "megadetector": ("zero_area", "megadetector/results.json: images[0].detections[1]"),
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
    place = re.escape(folder.uri_of(where))
    with pytest.raises(InputError, match=rf"faults \(1\), {kind} at {place}"):
        prepare(config_of(folder, name, strict=True))
    assert not folder.exists(f"{name}.parquet")


def test_a_class_without_boxes_keeps_its_name(folder: Folder) -> None:
    for name in ("coco", "yolo"):
        assert class_names_of(prepare(config_of(folder, name)).table) == ["cat", "nobody"]


def test_a_source_without_boxes_is_refused_with_its_faults(folder: Folder) -> None:
    folder.write("yolo/labels/a.txt", b"9 0.25 0.5 0.3 0.5\n")
    with pytest.raises(InputError, match=r"0 usable images, faults \(2\).*a\.txt:1"):
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


def test_a_given_format_is_not_doubted(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"has no classes\.txt"):
        prepare(config_of(folder, "voc", format="yolo", split="train"))


@pytest.mark.parametrize(
    ("name", "flags", "named"),
    [
        ("coco", {"images": "nowhere"}, "holds no photos"),
        ("coco", {"split": "train"}, "--split chooses among the files of a folder"),
        ("coco", {"classes": "cat"}, "--classes is for voc and label_studio.* read as coco"),
        ("yolo", {"split": "val"}, "split='val'.* has .'train'."),
        ("yolo", {"images": "yolo/images"}, "leave out --images"),
        ("voc", {"run": "night"}, "--run is for detections"),
        ("voc", {"min_score": 0.7}, "--min_score is for coco and yolo and megadetector"),
        ("voc", {"classes": "cat,cat"}, "'cat'"),
        ("voc", {"source": "s3://no-such-bucket/voc", "format": "voc"}, "no-such-bucket"),
    ],
)
def test_flags_that_do_not_go_with_the_source_are_refused(
    folder: Folder, s3_endpoint: str, name: str, flags: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        prepare(config_of(folder, name, **flags))


def test_coco_without_photos_beside_it_needs_their_folder(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"has no photos with it.* need --images"):
        prepare(config_of(folder, "coco", source=folder.uri_of("lonely/instances.json"), images=""))
    made = prepare(config_of(folder, "coco", images=""))
    assert made.table["image_uri"].to_pylist() == [folder.uri_of("coco/photos/a.jpg")]
    assert made.notes == [
        "1 of 1 photos were found by the tail of their name: a.jpg is photos/a.jpg"
    ]


def test_a_folder_that_cannot_be_listed_is_named_without_an_error_number(folder: Folder) -> None:
    loop = Path(folder.uri, "labelimg", "around")
    loop.symlink_to(loop.parent)
    message = f"labelimg' cannot be read: {loop}: a link to a folder around itself"
    with pytest.raises(InputError, match=re.escape(message) + "$"):
        prepare(config_of(folder, "labelimg"))


@pytest.mark.parametrize("wrong", [{"output": "train.json"}, {"min_score": 50}])
def test_a_config_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        PrepareConfig(**{"source": "voc", "output": "train.parquet", **wrong})
