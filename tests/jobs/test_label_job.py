import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs import label
from jobs.cli import parse
from pipelines.errors import InputError


@dataclass(frozen=True, kw_only=True)
class _Config:
    name: str
    size: int | tuple[int, int] | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("size=13: brings bad luck")


def test_flags_win_over_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: from file\nsize: [32, 64]\n")
    given = [f"--config={tmp_path / 'run.yaml'}", "--name", "from flag", "--quick"]
    assert parse(_Config, "", args=given) == _Config(name="from flag", size=(32, 64), quick=True)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--name=a", "--sise=3"], "--sise"),
        ([], "name"),
        (["--name=a", "--size=13"], "brings bad luck"),
        (["--config=/nowhere.yaml"], "nowhere"),
    ],
)
def test_a_wrong_flag_is_one_sentence_that_points_to_the_help(args, complaint) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        parse(_Config, "", args=args)
    assert "\n" not in str(caught.value)
    assert "--help" in str(caught.value)


def _run(args: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["label", *args])
    try:
        label.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_bad_input_exits_with_2_and_one_sentence(tmp_path, monkeypatch, capsys) -> None:
    args = ["--source", "x", "--table", str(tmp_path), "--checkpoint", str(tmp_path / "absent")]
    assert _run(args, monkeypatch) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert _run(["--no_such_flag"], monkeypatch) == 2


@pytest.mark.ray
def test_too_many_failures_exit_with_3_after_all_rows_are_written(
    tmp_path, tiny_checkpoint, monkeypatch, capsys, local_ray
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "photos/bad.jpg").write_bytes(b"")
    (tmp_path / "photos/0.json").write_text("{}")
    args = [f"--source={tmp_path / 'photos'}", f"--table={tmp_path / 'table'}", "--run=r"]
    args.append(f"--checkpoint={tmp_path / 'tiny.pth'}")
    assert _run(args, monkeypatch) == 3
    out, err = capsys.readouterr()
    assert "listed 4 = labelled 3 + failed 1" in out
    assert "failed, empty_object: 1" in out
    assert "not listed: 1 .json (--all_files lists whatever has another suffix)" in out
    assert "25.0% of the images failed" in err
    assert json.loads((tmp_path / "table/runs/r.json").read_text())["status"] == "complete"
    assert _run([*args, "--max_failed_share=0.25"], monkeypatch) == 0
    assert "nothing left to do" in capsys.readouterr().out


@pytest.mark.ray
def test_a_dry_run_writes_nothing_and_tells_what_the_run_would_take(
    tmp_path, tiny_checkpoint, monkeypatch, capsys, local_ray
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    (tmp_path / "photos").mkdir()
    for number in range(30):
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), np.zeros((8, 8, 3), np.uint8))
    for number in range(10):
        (tmp_path / f"photos/{number}.jpg").write_bytes(b"")
    (tmp_path / "photos/0.json").write_text("{}")
    args = [f"--source={tmp_path / 'photos'}", f"--table={tmp_path / 'table'}", "--dry_run"]
    args.append(f"--checkpoint={tmp_path / 'tiny.pth'}")
    assert _run(args, monkeypatch) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["images"], told["sampled"], told["left_out"]) == (40, 40, {".json": 1})
    assert told["share_failed"] == {"empty_object": 0.25}
    assert told["table_bytes"] > 0
    assert told["requests"] == {"list": 0, "get": 0, "put": 0}
    [duration] = told["durations"]
    assert duration["seconds"] > told["start_up_seconds"] > 0
    assert "25.0% empty_object" in err
    assert not (tmp_path / "table").exists()
