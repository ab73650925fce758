import sys
from pathlib import Path

import numpy as np
import pytest

from jobs import export_model
from pipelines.detectors.runtimes.ort import open_session
from tests.conftest import ROOT, Bucket

CHECKPOINT = str(ROOT / "assets/shapes/shapes_nano.pth")


def _export(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["export_model", *args])
    try:
        export_model.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("contents", ["raw", "decoded", "nms"])
def test_what_is_printed_is_what_the_file_takes_and_gives(
    contents: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    output = str(tmp_path / "folder/model.onnx")
    given = ["--checkpoint", CHECKPOINT, "--output", output, "--contents", contents]
    assert _export(monkeypatch, *given, "--score_threshold=0") == 0
    session = open_session(Path(output).read_bytes())
    names = [end.name for end in (*session.get_inputs(), *session.get_outputs())]
    *declared, summary = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in declared] == names
    assert declared[0] == "canvases: (batch, height, width, 3) tensor(uint8)"
    assert summary.endswith(f" MB: {output}")
    for batch in (1, 3):
        outputs = session.run(None, {"canvases": np.zeros((batch, 64, 96, 3), np.uint8)})
        assert all(len(output) for output in outputs)


def test_the_help_names_all_that_the_files_declare(monkeypatch, capsys, tmp_path: Path) -> None:
    assert _export(monkeypatch, "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "opset 17" in told
    for contents in ("raw", "decoded", "nms"):
        output = str(tmp_path / "x.onnx")
        given = ["--checkpoint", CHECKPOINT, "--output", output, "--contents", contents]
        assert _export(monkeypatch, *given) == 0
        for line in capsys.readouterr().out.splitlines()[:-1]:
            assert line.partition(":")[0] in told


def test_a_file_for_one_size_goes_to_s3_too(bucket: Bucket, monkeypatch) -> None:
    output = f"s3://{bucket.name}/weights/model.onnx"
    given = ["--checkpoint", CHECKPOINT, "--output", output, "--input_size", "[64, 96]"]
    assert _export(monkeypatch, *given) == 0
    stored = bucket.client.get_object(Bucket=bucket.name, Key="weights/model.onnx")
    [canvases] = open_session(stored["Body"].read()).get_inputs()
    assert canvases.shape == ["batch", 64, 96, 3]


def test_what_cannot_be_exported_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    model = str(tmp_path / "model.onnx")
    assert _export(monkeypatch, "--checkpoint", CHECKPOINT, "--output", model) == 0
    (tmp_path / "page.pth").write_bytes(b"<html>")
    (tmp_path / "file").write_bytes(b"")
    right = {"checkpoint": CHECKPOINT, "output": str(tmp_path / "another.onnx")}
    complaints: dict[str, dict[str, str]] = {
        "is an ONNX file already: give a checkpoint": {"checkpoint": model},
        "not a torch file": {"checkpoint": str(tmp_path / "page.pth")},
        "cannot be read": {"checkpoint": str(tmp_path / "nowhere.pth")},
        "cannot be written": {"output": str(tmp_path / "file/model.onnx")},
        "multiples of 32": {"input_size": "100"},
        "score_threshold=2.0: must lie between 0 and 1": {"score_threshold": "2"},
        "boxes": {"contents": "boxes"},
    }
    for complaint, wrong in complaints.items():
        flags = [f"--{name}={value}" for name, value in (right | wrong).items()]
        assert _export(monkeypatch, *flags) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "another.onnx").exists()
