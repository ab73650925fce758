"""The runtime of a labelling run: chosen, written down, kept; the same rows whichever it is."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from pipelines.datasets import read_coco
from pipelines.detectors import onnx_of
from pipelines.errors import InputError
from pipelines.evaluation.coco import evaluate
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.graph import Stages
from pipelines.labelling.model import Model, made_ready, read_model
from pipelines.labelling.run import LabellingSummary, label_images
from pipelines.planning import ActorPlan
from pipelines.storage.folder import Folder
from pipelines.tables import runs
from pipelines.tables.ledger import Ledger
from pipelines.tables.query import open_run, run_query
from pipelines.tables.runs import RunRecord, RunSettings
from tests.run_settings import SETTINGS

ROOT = Path(__file__).parents[3]
ON_CPUS = ActorPlan(num_actors=2, cpus=1, gpus=0)
ON_GPUS = ActorPlan(num_actors=1, cpus=4, gpus=1)
AUTO, BY_ONNX = (replace(SETTINGS, runtime=runtime) for runtime in (runs.AUTO, "onnxruntime"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, which exported files go to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/yolox-ray"


@pytest.fixture
def given(tmp_path: Path, tiny_checkpoint: bytes) -> dict[str, str]:
    """Three photos, a table that is not there yet, and weights; a threshold that gives rows."""
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), pixels)
    names = {"source": "photos", "table": "table", "checkpoint": "tiny.pth"}
    return {name: str(tmp_path / path) for name, path in names.items()}


def _config(given: dict[str, str], **changes: object) -> LabellingConfig:
    return LabellingConfig(**given | {"score_threshold": 0.00005} | changes)


def _record(table: Folder, run: str, settings: RunSettings) -> RunRecord:
    record = RunRecord(
        run=run, date=runs.today(), settings=settings, weights_uri="w", ledger=Ledger(9), parts=2
    )
    runs.write_record(table, record)
    return record


# What a run's settings say


def test_a_runtime_changes_no_fingerprint_and_no_labels(tmp_path: Path) -> None:
    assert SETTINGS.fingerprint() == AUTO.fingerprint() == BY_ONNX.fingerprint()
    assert SETTINGS.labels_like(BY_ONNX)
    assert not SETTINGS.labels_like(replace(BY_ONNX, nms_threshold=0.5))


def test_a_run_goes_on_with_its_own_runtime_only(tmp_path: Path) -> None:
    table = Folder(str(tmp_path))
    _record(table, "night", BY_ONNX)
    assert runs.read_fitting(table, "night", None, BY_ONNX)
    assert runs.read_fitting(table, "night", None, AUTO)
    with pytest.raises(InputError, match=r"\(runtime 'onnxruntime', now 'torch'\)"):
        runs.read_fitting(table, "night", None, SETTINGS)


def test_an_unnamed_run_is_found_by_its_runtime_or_by_auto(tmp_path: Path) -> None:
    table = Folder(str(tmp_path))
    name = runs.default_run_name(table, runs.today(), BY_ONNX)
    record = _record(table, name, BY_ONNX)
    assert runs.find_record(table, None, None, AUTO) == record
    assert runs.find_record(table, None, None, BY_ONNX) == record
    assert runs.find_record(table, None, None, SETTINGS) is None
    assert runs.default_run_name(table, runs.today(), SETTINGS) == f"{name}-2"


@pytest.mark.parametrize(
    ("detector", "runtime"), [("yolox", "torch"), ("pipelines.detector:Detector", "torch")]
)
def test_a_record_from_before_there_were_runtimes_is_of_torch(detector: str, runtime: str) -> None:
    record = RunRecord(
        run="r", date="2026-11-21", settings=SETTINGS, weights_uri="w", ledger=Ledger(9)
    )
    stored = json.loads(record.to_json()) | {"detector": detector}
    del stored["runtime"]
    assert RunRecord.from_json(json.dumps(stored).encode()).settings.runtime == runtime


def test_a_record_of_somebody_s_own_detector_has_no_runtime() -> None:
    stored = {**asdict(SETTINGS), "detector": "package.module:Class"}
    del stored["runtime"]
    stored |= {"run": "r", "date": "2026-11-21", "weights_uri": "w", "listed": 9}
    assert RunRecord.from_json(json.dumps(stored).encode()).settings.runtime == ""


# What is chosen


@pytest.mark.parametrize(
    ("asked", "plan", "runtime", "device"),
    [
        ("auto", ON_CPUS, "onnxruntime", "cpu"),
        ("auto", ON_GPUS, "torch", "cuda"),
        ("torch", ON_CPUS, "torch", "cpu"),
        ("onnxruntime", ON_GPUS, "onnxruntime", "cpu"),
    ],
)
def test_torch_runs_on_gpus_and_onnx_runtime_on_cpus(
    asked: str, plan: ActorPlan, runtime: str, device: str, given, local_ray, cache: Path
) -> None:
    config = _config(given, runtime=asked)
    model = read_model(config, Path(given["checkpoint"]).read_bytes())
    nothing = dict.fromkeys(("fetch", "read", "write"), print)
    stages = Stages.of(config, model, plan, None, **nothing)
    assert (stages.settings.runtime, stages.settings.device) == (runtime, device)
    assert cache.exists() == (runtime == "onnxruntime")  # with torch nothing is exported


def test_a_file_that_is_onnx_is_run_by_onnx_runtime_and_by_nothing_else(
    given, tiny_checkpoint: bytes
) -> None:
    weights = onnx_of(tiny_checkpoint)
    model = read_model(_config(given), weights)
    assert model.settings.runtime == "onnxruntime"
    assert made_ready(model, ON_GPUS) == model
    with pytest.raises(InputError, match="is an ONNX file, which torch does not run: give the che"):
        read_model(_config(given, runtime="torch"), weights)


def test_somebody_s_own_detector_has_no_runtime(given) -> None:
    config = _config(given, detector="tests.stand_in:StandIn")
    model = read_model(config, b"\x08 anything")
    assert model.settings.runtime == ""
    assert made_ready(model, ON_CPUS) == Model(b"\x08 anything", model.settings)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"runtime": "onnxruntime", "gpus_per_actor": 1.0}, "runs on CPUs: give --runtime torch"),
        ({"runtime": "torch", "detector": "a:B"}, "runtime='torch': is for the detector yolox"),
    ],
)
def test_a_runtime_that_cannot_be_is_refused(changes: dict, complaint: str, given) -> None:
    with pytest.raises(ValueError, match=complaint):
        _config(given, **changes)


# What comes out


def _rows(summary: LabellingSummary, table: str) -> pa.Table:
    sql = "SELECT * EXCLUDE (run) FROM detections ORDER BY image_uri, detection_index"
    return run_query(open_run(table, summary.record.run), sql)


def _label(given: dict[str, str], **changes: object) -> LabellingSummary:
    return label_images(_config(given, **changes))


@pytest.mark.ray
def test_a_run_says_what_ran_it_and_auto_goes_on_with_that(given, local_ray) -> None:
    by_torch = _label(given, runtime="torch", run="by_torch")
    assert by_torch.record.settings.runtime == "torch"
    table = Folder(given["table"])
    runs.write_record(table, replace(by_torch.record, status=runs.STOPPED))
    for part in table.list(f"images/date={by_torch.record.date}/run=by_torch")[:1]:
        table.delete(part)
    again = _label(given, run="by_torch")
    assert again.record.settings.runtime == "torch"
    assert again.labelled_now > 0
    by_itself = _label(given)
    assert by_itself.record.settings.runtime == "onnxruntime"
    stored = json.loads(table.read(f"runs/{by_itself.record.run}.json"))
    assert stored["runtime"] == "onnxruntime"
    assert stored["package_versions"]["onnxruntime"]
    with pytest.raises(InputError, match="runtime 'torch', now 'onnxruntime'"):
        _label(given, runtime="onnxruntime", run="by_torch")


def _without_torch(folder: Path) -> dict[str, str]:
    """An environment in which whoever imports torch fails, whatever process that is."""
    for name in ("torch", "torchvision", "onnx"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not to be imported')")
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.ray
@pytest.mark.parametrize(
    "checkpoint", ["model.onnx", pytest.param("tiny.pth", marks=pytest.mark.slow)]
)
def test_an_onnx_file_and_a_checkpoint_that_was_exported_are_labelled_with_without_torch(
    checkpoint: str, given, tiny_checkpoint: bytes, tmp_path: Path
) -> None:
    (tmp_path / "no_torch").mkdir()
    (tmp_path / "model.onnx").write_bytes(onnx_of(tiny_checkpoint))
    told = given | {"checkpoint": str(tmp_path / checkpoint), "score_threshold": "0.00005"}
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.label", *(f"--{k}={v}" for k, v in told.items()), "--run=r"],
        cwd=ROOT,
        env=_without_torch(tmp_path / "no_torch"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    assert "labelled 3 + failed 0" in ran.stdout
    [boxes] = run_query(open_run(given["table"], "r"), "SELECT count(*) FROM detections")
    assert boxes[0].as_py() > 0


@pytest.mark.ray
@pytest.mark.slow
def test_the_rows_are_the_same_whatever_runs_the_official_weights(
    tmp_path: Path, shared: Path, local_ray
) -> None:
    photos = shared / "data/coco_val79/images"
    given = {
        "source": str(photos),
        "table": str(tmp_path / "table"),
        "checkpoint": str(shared / "weights/yolox_nano_coco.pth"),
    }
    truth = read_coco(str(shared / "data/coco_val79/instances.json"), str(photos))
    found = {}
    for runtime in ("torch", "onnxruntime"):
        config = LabellingConfig(**given, runtime=runtime, run=runtime)
        found[runtime] = _rows(label_images(config), given["table"])
        assert round(evaluate(found[runtime], truth).ap, 4) == 0.3123
    _assert_same_rows(found["torch"], found["onnxruntime"])


def _assert_same_rows(one: pa.Table, other: pa.Table) -> None:
    """Each row of one has a twin in the other, for near ties change places."""
    assert len(one) == len(other) == 4760
    mine, theirs = one.to_pandas(), other.to_pandas()
    corners = ["x1", "y1", "x2", "y2"]
    for uri, rows in mine.groupby("image_uri"):
        twins = theirs[theirs.image_uri == uri]
        far = np.abs(rows[corners].to_numpy()[:, None] - twins[corners].to_numpy()).max(axis=-1)
        far[rows.class_id.to_numpy()[:, None] != twins.class_id.to_numpy()] = np.inf
        which = far.argmin(axis=1)
        assert len(set(which)) == len(which) == len(twins)
        twins = twins.iloc[which]
        np.testing.assert_allclose(rows[corners], twins[corners], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(rows.score, twins.score, atol=1e-4)
