"""Every format is read back by the tools that it is for."""

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest
import supervision as sv
from jsonschema import validate
from pycocotools.coco import COCO

from pipelines.datasets import FaultKind, PrepareConfig, class_names_of, prepare
from pipelines.exports import ExportConfig, Exported, export_table, label_studio, selection
from pipelines.storage.folder import Folder
from tests.pipelines.exports.conftest import CLASSES, Archive, Found, read_json

LABEL_STUDIO = os.environ.get("LABEL_STUDIO_PYTHON", "")
"""A Python with label-studio-sdk, whose OpenCV is older than ours."""


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that ten photos are read, and tasks written, in several goes."""
    monkeypatch.setattr(selection, "PHOTOS_AT_ONCE", 3)
    monkeypatch.setattr(label_studio, "TASKS_PER_FILE", 5)


def export(archive: Archive, format: Any, output: Path, **more: Any) -> Exported:
    config = ExportConfig(table=archive.table.uri, format=format, output=str(output), **more)
    return export_table(config)


def coco_of(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def training_rows(
    config: PrepareConfig, uris: dict[str, str] | None = None, failed: int = 0
) -> dict[str, Any]:
    """What our importers make of it: by URI, the size, and the boxes by class name.

    Args:
        uris: of the photos, by where the importer found them.
        failed: how many images it must say that they failed.
    """
    prepared = prepare(config)
    assert [fault.kind for fault in prepared.faults] == [FaultKind.UNREADABLE] * failed
    names = class_names_of(prepared.table)
    return {
        (uris or {}).get(row["image_uri"], row["image_uri"]): (
            (row["width"], row["height"]),
            [
                (names[class_id], pytest.approx(box, abs=1e-4))
                for class_id, box in zip(row["class_ids"], row["boxes"], strict=True)
            ],
        )
        for row in prepared.table.to_pylist()
    }


def copies_of(archive: Archive, folder: Path) -> dict[str, str]:
    """The path of each photo's copy to its URI: the one that has the same bytes."""
    originals = {Path(uri).read_bytes(): uri for uri in archive.labelled}
    return {str(path): originals[path.read_bytes()] for path in folder.iterdir()}


def without_scores(found: Found) -> list[tuple[str, Any]]:
    return [(name, corners) for name, _, corners in found]


def expected_rows(archive: Archive) -> dict[str, Any]:
    return {
        uri: (archive.sizes[uri], without_scores(found)) for uri, found in archive.labelled.items()
    }


def test_pycocotools_reads_every_box_score_and_size_to_the_last_bit(
    archive: Archive, tmp_path: Path
) -> None:
    exported = export(archive, "coco", tmp_path / "coco")
    coco = coco_of(tmp_path / "coco/instances.json")
    read: dict[str, Found] = {}
    for image in coco.imgs.values():
        assert (image["width"], image["height"]) == archive.sizes[image["coco_url"]]
        read[image["coco_url"]] = [
            (coco.cats[note["category_id"]]["name"], note["score"], (x, y, x + width, y + height))
            for note in coco.loadAnns(coco.getAnnIds(image["id"]))
            for x, y, width, height in [note["bbox"]]
        ]
    assert read == archive.labelled
    assert exported.photos == f"{archive.photos.uri}/"
    assert {image["file_name"] for image in coco.imgs.values()} == set(archive.with_names())


def test_coco_has_images_without_boxes_and_no_failed_ones(archive: Archive, tmp_path: Path) -> None:
    exported = export(archive, "coco", tmp_path / "coco")
    coco = coco_of(tmp_path / "coco/instances.json")
    empty = {uri for uri, found in archive.labelled.items() if not found}
    without = {i["coco_url"] for i in coco.imgs.values() if not coco.getAnnIds(i["id"])}
    assert without == empty
    assert (exported.counts.photos, exported.counts.empty, exported.counts.failed) == (10, 2, 2)
    failed = duckdb.sql(f"SELECT image_uri, error_kind FROM '{tmp_path}/coco/failed.csv'")
    assert dict(failed.fetchall()) == archive.failed


@pytest.mark.parametrize("photos", ["where they are", "copied"])
def test_our_own_importer_reads_the_coco_file_as_it_reads_the_table(
    archive: Archive, tmp_path: Path, photos: str
) -> None:
    output, copy = tmp_path / "coco", photos == "copied"
    export(archive, "coco", output, copy_photos=copy)
    images = output / "images" if copy else Path(archive.photos.uri)
    uris = copies_of(archive, images) if copy else None
    from_coco = PrepareConfig(
        source=f"{output}/instances.json",
        images=str(images),
        output=f"{tmp_path}/a.parquet",
        min_score=0,
    )
    assert training_rows(from_coco, uris) == expected_rows(archive)


def test_our_own_importer_reads_the_yolo_labels_and_an_empty_one_is_a_negative(
    archive: Archive, tmp_path: Path
) -> None:
    output = tmp_path / "yolo"
    export(archive, "yolo", output, copy_photos=True)
    uris = copies_of(archive, output / "images")
    config = PrepareConfig(source=str(output), split="train", output=f"{tmp_path}/a.parquet")
    assert training_rows(config, uris) == expected_rows(archive)
    empty = [path for path in (output / "labels").iterdir() if not path.read_bytes()]
    negatives = {uri for uri, found in archive.labelled.items() if not found}
    stems = {Path(copy).stem: uri for copy, uri in uris.items()}
    assert {stems[path.stem] for path in empty} == negatives
    assert len(list((output / "labels").iterdir())) == len(archive.labelled)


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_labels_find_their_photos_once_the_folder_of_these_is_linked(
    archive: Archive, tmp_path: Path, format: str
) -> None:
    output = tmp_path / "out"
    exported = export(archive, format, output)
    Path(exported.photos).symlink_to(exported.archive.rstrip("/"))
    split = "train" if format == "yolo" else "trainval"
    config = PrepareConfig(source=str(output), split=split, output=f"{tmp_path}/a.parquet")
    linked = {
        f"{exported.photos}/{name}": archive.photos.uri_of(name) for name in archive.with_names()
    }
    assert training_rows(config, linked) == expected_rows(archive)


def test_our_own_importer_reads_the_voc_files(archive: Archive, tmp_path: Path) -> None:
    output = tmp_path / "voc"
    export(archive, "voc", output, copy_photos=True)
    uris = copies_of(archive, output / "JPEGImages")
    config = PrepareConfig(source=str(output), output=f"{tmp_path}/a.parquet")
    assert training_rows(config, uris) == expected_rows(archive)
    listed = (output / "ImageSets/Main/trainval.txt").read_text().splitlines()
    assert set(listed) == {Path(path).stem for path in uris}


def supervision_reads(format: str, output: Path) -> sv.DetectionDataset:
    if format == "coco":
        return sv.DetectionDataset.from_coco(f"{output}/images", f"{output}/instances.json")
    if format == "yolo":
        folders = (f"{output}/images", f"{output}/labels", f"{output}/data.yaml")
        return sv.DetectionDataset.from_yolo(*folders)
    return sv.DetectionDataset.from_pascal_voc(f"{output}/JPEGImages", f"{output}/Annotations")


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_supervision_reads_photos_classes_and_boxes(
    archive: Archive, tmp_path: Path, format: str
) -> None:
    output = tmp_path / "out"
    export(archive, format, output, copy_photos=True)
    uris = copies_of(archive, output / ("JPEGImages" if format == "voc" else "images"))
    dataset = supervision_reads(format, output)
    read = {}
    for path, image, detections in dataset:
        uri = uris[path]
        assert image.shape[1::-1] == archive.sizes[uri]
        read[uri] = [
            (dataset.classes[class_id], pytest.approx(tuple(box), abs=1e-3))
            for box, class_id in zip(detections.xyxy, detections.class_id, strict=True)
        ]
    assert read == {uri: without_scores(found) for uri, found in archive.labelled.items()}
    assert sorted(dataset.classes) == sorted(CLASSES)


def refuse_megadetector(results: dict[str, Any]) -> None:
    """Raises AssertionError unless it keeps to https://lila.science/megadetector-output-format."""
    assert isinstance(results["info"]["format_version"], str)
    assert float(results["info"]["format_version"]) >= 1.3
    for number, name in results["detection_categories"].items():
        assert int(number) > 0  # 0 stands for empty
        assert name.strip()
    for image in results["images"]:
        assert "\\" not in image["file"]
        if image.get("failure") is not None:
            assert isinstance(image["failure"], str)
            assert image.get("detections") is None
            continue
        assert isinstance(image["detections"], list)
        for detection in image["detections"]:
            assert detection["category"] in results["detection_categories"]
            assert isinstance(detection["conf"], float)
            assert 0 <= detection["conf"] <= 1
            x, y, width, height = detection["bbox"]
            assert min(x, y, width, height) >= 0
            assert max(x + width, y + height) <= 1 + 1e-9


def test_megadetector_s_rules_hold_and_shares_lead_back_to_pixels(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "megadetector", tmp_path / "out")
    results = read_json(tmp_path / "out/megadetector.json")
    refuse_megadetector(results)
    names = results["detection_categories"]
    read = {
        image["file"]: [
            (
                names[detection["category"]],
                detection["conf"],
                pytest.approx((x * w, y * h, (x + width) * w, (y + height) * h)),
            )
            for detection in image["detections"]
            for (x, y, width, height), w, h in [
                (detection["bbox"], image["width"], image["height"])
            ]
        ]
        for image in results["images"]
        if image["detections"] is not None
    }
    assert read == archive.with_names()


def test_our_own_importer_reads_megadetector_s_results_and_what_failed(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "megadetector", tmp_path / "out")
    config = PrepareConfig(
        source=f"{tmp_path}/out/megadetector.json",
        images=archive.photos.uri,
        output=f"{tmp_path}/a.parquet",
        min_score=0,
    )
    assert training_rows(config, failed=2) == expected_rows(archive)


def test_a_failed_image_says_why_in_megadetector_s_results(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "megadetector", tmp_path / "out")
    images = read_json(tmp_path / "out/megadetector.json")["images"]
    failed = {image["file"]: image["failure"] for image in images if "failure" in image}
    assert failed == {
        uri.removeprefix(f"{archive.photos.uri}/"): f"{kind}: no pixels"
        for uri, kind in archive.failed.items()
    }
    assert not (tmp_path / "out/failed.csv").exists()


PREDICTED_TASK = {
    "type": "object",
    "required": ["data", "predictions"],
    "properties": {
        "data": {"required": ["image"]},
        "predictions": {
            "items": {
                "required": ["model_version", "result"],
                "properties": {
                    "score": {"type": "number", "minimum": 0, "maximum": 1},
                    "result": {
                        "items": {
                            "required": [
                                *("id", "type", "from_name", "to_name", "value"),
                                *("original_width", "original_height"),
                            ],
                            "properties": {
                                "type": {"const": "rectanglelabels"},
                                "value": {
                                    "required": ["rotation", "rectanglelabels"],
                                    "properties": {
                                        side: {"type": "number", "minimum": 0, "maximum": 100}
                                        for side in ("x", "y", "width", "height")
                                    },
                                },
                            },
                        }
                    },
                },
            }
        },
    },
}
"""https://labelstud.io/guide/predictions"""


def tasks_of(output: Path) -> list[dict[str, Any]]:
    return [task for path in sorted(output.glob("tasks-*.json")) for task in read_json(path)]


def test_label_studio_s_tasks_have_what_was_found_in_percents(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "labelstudio", tmp_path / "out")
    tasks = tasks_of(tmp_path / "out")
    read = {}
    for task in tasks:
        validate(task, PREDICTED_TASK)
        [prediction] = task["predictions"]
        width, height = archive.sizes[task["data"]["image_uri"]]
        read[task["data"]["image_uri"]] = [
            (
                *value["rectanglelabels"],
                region["score"],
                pytest.approx(
                    (
                        value["x"] * width / 100,
                        value["y"] * height / 100,
                        (value["x"] + value["width"]) * width / 100,
                        (value["y"] + value["height"]) * height / 100,
                    )
                ),
            )
            for region in prediction["result"]
            for value in [region["value"]]
        ]
    assert read == archive.labelled
    assert [path.name for path in sorted((tmp_path / "out").glob("tasks-*"))] == [
        "tasks-001.json",  # five tasks
        "tasks-002.json",  # three
    ]


def test_label_studio_finds_local_photos_below_the_root_of_the_disk(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "labelstudio", tmp_path / "out")
    images = [task["data"]["image"] for task in tasks_of(tmp_path / "out")]
    first = archive.photos.uri_of("2026-10/deep%20down/0%20%C3%BC.jpg").lstrip("/")
    assert images[0] == f"/data/local-files/?d={first}"


def submitted(output: Path) -> list[dict[str, Any]]:
    """The tasks after somebody has looked at them and agreed with everything."""
    return [
        {**task, "annotations": [{"id": 1, "result": task["predictions"][0]["result"]}]}
        for task in tasks_of(output)
    ]


def test_our_own_importer_reads_what_label_studio_gives_back(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "labelstudio", tmp_path / "out")
    (tmp_path / "project.json").write_text(json.dumps(submitted(tmp_path / "out")))
    config = PrepareConfig(
        source=f"{tmp_path}/project.json",
        images=archive.photos.uri,
        output=f"{tmp_path}/a.parquet",
    )
    assert training_rows(config) == expected_rows(archive)


@pytest.mark.skipif(not LABEL_STUDIO, reason="LABEL_STUDIO_PYTHON names no Python with its SDK")
def test_label_studio_s_own_sdk_accepts_the_predictions_and_converts_them(
    archive: Archive, tmp_path: Path
) -> None:
    export(archive, "labelstudio", tmp_path / "out")
    (tmp_path / "submitted.json").write_text(json.dumps(submitted(tmp_path / "out")))
    code = """
import json, sys
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface
config, tasks, output = sys.argv[1:]
interface = LabelInterface(open(config).read())
interface.validate()
for task in json.load(open(tasks)):
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction, return_errors=True) == []
converter = Converter(open(config).read(), output, download_resources=False)
converter.convert_to_coco(tasks, output, is_dir=False)
"""
    arguments = [f"{tmp_path}/out/label_config.xml", f"{tmp_path}/submitted.json", f"{tmp_path}/ls"]
    subprocess.run([LABEL_STUDIO, "-c", code, *arguments], check=True, cwd=tmp_path)
    coco = read_json(tmp_path / "ls/result.json")
    names = {category["id"]: category["name"] for category in coco["categories"]}
    boxes = [
        (names[note["category_id"]], pytest.approx((x, y, x + width, y + height), abs=1e-6))
        for note in coco["annotations"]
        for x, y, width, height in [note["bbox"]]
    ]
    in_order = [without_scores(archive.labelled[uri]) for uri in sorted(archive.labelled)]
    assert boxes == [box for found in in_order for box in found]
    assert len(coco["images"]) == len(archive.labelled)


def test_csv_holds_all_rows_of_both_tables(archive: Archive, tmp_path: Path) -> None:
    export(archive, "csv", tmp_path / "out")
    for view, order in (("images", ""), ("detections", ", detection_index")):
        table = archive.table.uri
        stored = duckdb.sql(
            f"SELECT * FROM read_parquet('{table}/{view}/*/*/*.parquet', hive_partitioning = true) "
            f"ORDER BY image_uri{order}"
        )
        read = duckdb.sql(f"SELECT * FROM '{tmp_path}/out/{view}.csv' ORDER BY image_uri{order}")
        for name in stored.columns:
            # As text, for Python's times of a zone need pytz.
            asked = f"{name}::{stored.select(name).types[0]}::VARCHAR"
            assert read.project(asked).fetchall() == stored.project(asked).fetchall()


def test_a_box_of_less_than_a_pixel_is_a_pixel_in_voc(labelled_run: Any, tmp_path: Path) -> None:
    made = labelled_run(num_images=1)
    made.detections[0][0] |= {"x1": 9.5, "x2": 12.0, "y1": 7.0, "y2": 7.25}
    table = Folder(str(tmp_path / "labels"))
    made.write(table)
    export(Archive(table, table), "voc", tmp_path / "out")
    text = (tmp_path / "out/Annotations/00000.xml").read_text()
    # Columns 10.5 to 12, and the eighth row, counted from 1.
    assert "<xmin>10.5</xmin><ymin>8</ymin><xmax>12</xmax><ymax>8</ymax>" in text


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "labelstudio", "megadetector", "csv"])
def test_a_run_without_any_image_is_an_export_without_any(
    labelled_run: Any, tmp_path: Path, format: str
) -> None:
    table = Folder(str(tmp_path / "labels"))
    labelled_run(num_images=0).write(table)
    exported = export(Archive(table, table), format, tmp_path / "out")
    assert exported.counts.photos == 0
    if format == "coco":
        assert coco_of(tmp_path / "out/instances.json").imgs == {}
