import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.prepare import FAULTS_SHOWN, main
from pipelines.datasets import read_training_table
from pipelines.storage.folder import Folder

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "nobody"}]


def annotation(bbox: list[int], iscrowd: int = 0) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 7, "bbox": bbox, "iscrowd": iscrowd}


def write_coco(folder: Folder, *annotations: dict[str, Any]) -> list[str]:
    """One photo with annotations and one without; the flags that name them."""
    images = [IMAGE, IMAGE | {"id": 2, "file_name": "b.jpg"}]
    coco = {"images": images, "categories": CATEGORIES, "annotations": annotations}
    folder.write("instances.json", json.dumps(coco).encode())
    for name in ("a.jpg", "b.jpg"):
        folder.write(f"photos/{name}", b"never read: its size is known")
    source, photos = folder.uri_of("instances.json"), folder.uri_of("photos")
    return ["--source", source, "--images", photos, "--output", folder.uri_of("train.parquet")]


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr("sys.argv", ["jobs.prepare", *args])
    main()


def row_starting(text: str, first: str) -> list[str]:
    """The cells of the printed row whose first cell this is."""
    return next(cells for cells in map(str.split, text.splitlines()) if cells[:1] == [first])


def test_it_prints_boxes_crowds_and_images_of_each_class_and_zeros_of_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [annotation([1, 2, 3, 4]), annotation([5, 6, 7, 8]), annotation([0, 0, 50, 50], 1)]
    run(monkeypatch, *write_coco(Folder(str(tmp_path)), *boxes))
    printed = capsys.readouterr().out
    assert row_starting(printed, "cat") == ["cat", "2", "1", "1"]
    assert row_starting(printed, "nobody") == ["nobody", "0", "0", "0"]
    summary = "2 images, 1 of them without boxes; 2 boxes and 1 crowds; 0 faults: "
    assert f"{summary}{tmp_path}/train.parquet" in printed


def test_it_shows_the_first_faults_of_each_kind_and_writes_them_all_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = [annotation([x, 2, 0, 4]) for x in range(FAULTS_SHOWN + 5)]
    wide = annotation([10, 10, 500, 10])
    run(monkeypatch, *write_coco(Folder(str(tmp_path)), wide, *flat))
    printed = capsys.readouterr().out
    assert "zero_area: 25, left out" in printed
    assert printed.count("box 3, 2, 3, 6") == 1
    assert "box 20, 2, 20, 6" not in printed
    assert "the first 20 of 25 rows" in printed
    assert "clipped: 1, kept up to the edge" in printed
    assert "1 boxes and 0 crowds; 26 faults" in printed
    path = tmp_path / "train.faults.csv"
    assert f"every fault with its place: {path}" in printed
    faults = list(csv.DictReader(path.open()))
    assert len(faults) == 26
    last = {"where": f"{tmp_path}/instances.json: annotations[25]", "what": "box 24, 2, 24, 6"}
    assert {"kind": "zero_area"} | last in faults


def test_the_list_of_faults_is_never_that_of_an_earlier_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = annotation([1, 2, 3, 4])
    for faulty in ([annotation([1, 2, 0, 4])], []):
        run(monkeypatch, *write_coco(Folder(str(tmp_path)), good, *faulty))
        assert len((tmp_path / "train.faults.csv").read_text().splitlines()) == 1 + len(faulty)


def test_detections_of_enough_score_become_a_training_table(
    tmp_path: Path,
    labelled_run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = labelled_run(num_images=10)
    made.write(Folder(str(tmp_path / "labels")))
    labelled = [
        row["image_uri"]
        for rows in made.images.values()
        for row in rows
        if row["status"] == "labelled"
    ]
    scores = [row["score"] for rows in made.detections.values() for row in rows]
    kept = sum(score >= 0.8 for score in scores)
    assert 0 < kept < len(scores)
    output = str(tmp_path / "train.parquet")
    flags = ["--source", str(tmp_path / "labels"), "--output", output]
    run(monkeypatch, *flags, "--min_score", "0.8")
    table, class_names = read_training_table(output)
    assert table["image_uri"].to_pylist() == labelled
    assert class_names == ["cat", "dog", "bird"]
    assert sum(map(len, table["class_ids"].to_pylist())) == kept
    assert f"{kept} boxes and 0 crowds; 0 faults: {output}" in capsys.readouterr().out


def test_it_says_what_is_no_fault_and_still_worth_knowing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    low = annotation([5, 6, 7, 8]) | {"score": 0.3}
    flags = write_coco(Folder(str(tmp_path)), annotation([1, 2, 3, 4]), low)
    run(monkeypatch, *flags)
    printed = capsys.readouterr().out
    assert "note: 1 boxes have a score: 1 below --min_score 0.5 left out\n" in printed
    assert "1 boxes and 0 crowds; 0 faults: " in printed
    run(monkeypatch, *flags, "--min_score", "0.2", "--strict")  # which is about faults
    assert "2 boxes and 0 crowds; 0 faults: " in capsys.readouterr().out


def test_an_image_goes_with_an_annotation_that_cannot_be_read_unless_it_shall_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = annotation([5, 6, 7])
    other = annotation([1, 2, 3, 4]) | {"image_id": 2}
    flags = write_coco(Folder(str(tmp_path)), annotation([1, 2, 3, 4]), broken, other)
    run(monkeypatch, *flags)
    printed = capsys.readouterr().out
    assert "incomplete_image: 1, left out" in printed
    assert "1 images, 0 of them without boxes; 1 boxes and 0 crowds; 2 faults: " in printed
    run(monkeypatch, *flags, "--keep_incomplete")
    printed = capsys.readouterr().out
    assert "2 images, 0 of them without boxes; 2 boxes and 0 crowds; 1 faults: " in printed


def test_strict_exits_with_2_names_the_fault_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = write_coco(Folder(str(tmp_path)), annotation([1, 2, 3, 4]), annotation([1, 2, 0, 4]))
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *flags, "--strict")
    assert "instances.json: annotations[1]: box 1, 2, 1, 6" in capsys.readouterr().err
    assert not (tmp_path / "train.parquet").exists()


def test_source_photos_and_output_may_lie_in_s3(
    bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(f"s3://{bucket.name}")
    run(monkeypatch, *write_coco(folder, annotation([1, 2, 3, 4])))
    table, class_names = read_training_table(folder.uri_of("train.parquet"))
    assert table["image_uri"].to_pylist() == [
        folder.uri_of(f"photos/{name}.jpg") for name in ("a", "b")
    ]
    assert class_names == ["cat", "nobody"]
    assert f"0 faults: s3://{bucket.name}/train.parquet" in capsys.readouterr().out


def test_the_crowds_of_79_coco_photos_are_kept_apart(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    coco = shared / "data/coco_val79"
    flags = ["--source", f"{coco}/instances.json", "--images", f"{coco}/images"]
    run(monkeypatch, *flags, "--output", f"{tmp_path}/val.parquet")
    printed = capsys.readouterr().out
    assert "79 images, 0 of them without boxes; 619 boxes and 5 crowds; 0 faults" in printed
    _, class_names = read_training_table(f"{tmp_path}/val.parquet")
    assert len(class_names) == 80
