"""Large JPEGs decoded at a part of their size: who asks for what, and that it finds the same."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor

from pipelines.datasets import read_coco
from pipelines.detectors import DetectorSettings, YoloxDetector
from pipelines.errors import InputError
from pipelines.evaluation import evaluate
from pipelines.labelling import PART_KEYS, detect_block, detection_rows, fetch_block
from pipelines.labelling.config import LabellingConfig
from pipelines.storage import Folder
from pipelines.tables import Ledger, RunRecord, RunSettings, runs
from tests.run_settings import SETTINGS as IN_PART
from yolox_core import pairwise_iou

IN_FULL = replace(IN_PART, full_decode=True)


def _begun(settings: RunSettings) -> RunRecord:
    return RunRecord(
        run="r", date=runs.today(), settings=settings, weights_uri="w", ledger=Ledger(9), parts=2
    )


def test_a_run_that_was_begun_in_full_goes_on_so_and_one_in_part_cannot_be_made_full(
    tmp_path: Path,
) -> None:
    table = Folder(str(tmp_path))
    runs.write_record(table, _begun(IN_FULL))
    assert runs.read_fitting(table, "r", None, IN_PART).settings.full_decode
    runs.write_record(table, _begun(IN_PART))
    with pytest.raises(InputError, match="full_decode False, now True"):
        runs.read_fitting(table, "r", None, IN_FULL)


def test_a_record_from_before_there_was_a_choice_is_of_full_decoding_and_is_found() -> None:
    stored = json.loads(_begun(IN_PART).to_json())
    del stored["full_decode"]
    record = RunRecord.from_json(json.dumps(stored).encode())
    assert record.settings == IN_FULL
    assert IN_FULL.fingerprint() == IN_PART.fingerprint()


def test_an_incremental_night_skips_what_was_labelled_in_full_but_not_the_reverse() -> None:
    assert IN_FULL.labels_like(IN_PART)
    assert IN_PART.labels_like(IN_PART)
    assert not IN_PART.labels_like(IN_FULL)


def test_full_decode_is_for_yolox_only() -> None:
    with pytest.raises(ValueError, match="--full_decode is for the detector yolox only"):
        LabellingConfig(source="s", table="t", checkpoint="c", detector="a:B", full_decode=True)


def _enlarged(shared: Path, folder: Path) -> pa.Table:
    """The photos of coco_val79 made 4,000 px long, and their targets."""
    truth = json.loads((shared / "data/coco_val79/instances.json").read_text())
    scales = {}
    for image in truth["images"]:
        pixels = cv2.imread(str(shared / "data/coco_val79/images" / image["file_name"]))
        scale = scales[image["id"]] = 4000 / max(pixels.shape)
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / image["file_name"]), pixels)
        image["height"], image["width"] = pixels.shape[:2]
    for target in truth["annotations"]:
        scale = scales[target["image_id"]]
        target["bbox"] = [scale * side for side in target["bbox"]]
        target["area"] *= scale**2
        target["segmentation"] = []
    (folder / "instances.json").write_text(json.dumps(truth))
    return read_coco(str(folder / "instances.json"), str(folder))


def _rows(checkpoint: bytes, truth: pa.Table, full_decode: bool) -> pa.Table:
    settings = DetectorSettings(
        input_size=(416, 416),
        score_threshold=0.01,
        nms_threshold=0.65,
        max_pixels=100_000_000,
        batch_size=4,
        threads=2,
        device="cpu",
        full_decode=full_decode,
    )
    detector = YoloxDetector(checkpoint, settings)
    rows = []
    for start in range(0, len(truth), 16):  # a large photo is some 2 MB
        uris = truth["image_uri"].slice(start, 16).combine_chunks()
        nothing = pa.nulls(len(uris))
        listed = dict.fromkeys(PART_KEYS, pa.array([0] * len(uris), pa.int32()))
        listed |= {"image_uri": uris, "etag": nothing.cast(pa.string()), "size_bytes": nothing}
        rows.append(detection_rows(detect_block(detector, fetch_block(pa.table(listed), 1 << 28))))
    return pa.concat_tables(rows).unify_dictionaries()


@pytest.mark.slow
def test_large_photos_decoded_in_part_have_the_boxes_that_they_have_in_full(
    shared: Path, tmp_path: Path
) -> None:
    truth = _enlarged(shared, tmp_path)
    checkpoint = (shared / "weights/yolox_nano_coco.pth").read_bytes()
    in_full, in_part = (_rows(checkpoint, truth, full) for full in (True, False))
    ap = {name: evaluate(rows, truth).ap for name, rows in [("f", in_full), ("p", in_part)]}
    assert ap["p"] == pytest.approx(ap["f"], abs=0.001)
    assert _share_with_a_twin(in_full, in_part) >= 0.99


def _share_with_a_twin(rows: pa.Table, others: pa.Table) -> float:
    """Of the boxes that score above 0.3: those that one of the others covers at IoU 0.9."""
    sure = rows.filter(pc.greater(rows["score"], 0.3))
    assert len(sure) > 200
    best = []
    for uri in sure["image_uri"].unique():
        mine, theirs = (
            _boxes(table.filter(pc.equal(table["image_uri"], uri))) for table in (sure, others)
        )
        best.append(pairwise_iou(mine, theirs)[0].amax(dim=1))
    return (torch.cat(best) >= 0.9).float().mean().item()


def _boxes(rows: pa.Table) -> Tensor:
    """(1, N, 4) xyxy."""
    return torch.tensor([rows[side].to_pylist() for side in ("x1", "y1", "x2", "y2")]).T[None]
