import json
from pathlib import Path
from typing import Any

import pytest

from jobs.prepare import FAULTS_SHOWN, main
from pipelines.annotations import read_training_table
from pipelines.storage import Folder

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


def test_it_shows_the_first_faults_of_each_kind_and_counts_them_all(
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
