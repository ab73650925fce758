import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.training.config import TrainingConfig
from pipelines.training.metrics import EpochRow
from pipelines.training.mlflow_run import RUN_ID, followed, refuse_unreachable
from tests.epoch_rows import ROW
from tests.head import free_port

SECOND = replace(ROW, epoch=2, loss=5.5, ap=0.25, ap50=0.5)


def test_without_the_package_the_flag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"pip install 'yolox-ray\[mlflow\]'"):
        TrainingConfig(train="a", val="b", output="c", mlflow="http://localhost:5000")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("mlflow", reason="needs mlflow, of the extra mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "mlflow"


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    folder = Folder(f"{tmp_path}/mine")
    folder.write("best.pth", b"weights")
    folder.write("curves.png", b"picture")
    return folder


def follow(store: Path, output: Folder, *rows: EpochRow, done: tuple[EpochRow, ...] = ()) -> None:
    files = ("best.pth", "curves.png", "best.onnx")
    with followed(f"file:{store}", {"seed": 7}, output, done, files) as tell:
        for row in rows:
            tell(row)


def run_in(store: Path, output: Folder) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"file:{store}").get_run(output.read(RUN_ID).decode())


def losses_in(store: Path, output: Folder) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    run_id = output.read(RUN_ID).decode()
    history = MlflowClient(f"file:{store}").get_metric_history(run_id, "loss")
    return [(metric.step, metric.value) for metric in history]


def test_mlflow_has_settings_each_epochs_numbers_and_the_files(store: Path, output: Folder) -> None:
    from mlflow import MlflowClient

    follow(store, output, ROW, SECOND)
    run = run_in(store, output)
    assert run.data.params == {"seed": "7"}
    assert losses_in(store, output) == [(1, 6.5), (2, 5.5)]
    assert run.data.metrics == {name: v for name, v in asdict(SECOND).items() if name != "epoch"}
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    artifacts = MlflowClient(f"file:{store}").list_artifacts(run.info.run_id)
    assert [artifact.path for artifact in artifacts] == ["best.pth", "curves.png"]


def test_a_training_that_goes_on_is_the_same_run_and_no_epoch_is_there_twice(
    store: Path, output: Folder
) -> None:
    def break_off(row: EpochRow) -> None:
        with followed(f"file:{store}", {}, output, (), ()) as tell:
            tell(row)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off(ROW)
    before = run_in(store, output).info
    assert before.status == "FAILED"
    follow(store, output, replace(SECOND, epoch=3), done=(ROW, SECOND))
    assert run_in(store, output).info.run_id == before.run_id
    assert run_in(store, output).info.status == "FINISHED"
    assert losses_in(store, output) == [(1, 6.5), (2, 5.5), (3, 5.5)]


def test_a_store_that_fails_meanwhile_costs_a_warning_and_gets_what_it_missed_later(
    store: Path, output: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    with followed(f"file:{store}", {}, output, (), ()) as tell:
        shutil.move(store, f"{store}.away")
        store.write_text("no store")
        tell(ROW)
        assert "warning: MLflow does not take what it is sent" in capsys.readouterr().out
        store.unlink()
        shutil.move(f"{store}.away", store)
        tell(SECOND)
    assert losses_in(store, output) == [(1, 6.5), (2, 5.5)]
    assert "warning" not in capsys.readouterr().out


def test_a_server_that_is_not_there_is_told_before_the_training_without_a_password(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    at = f"127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"mlflow='http://{at}' cannot be used") as refused:
        refuse_unreachable(f"http://me:secret@{at}")
    assert "secret" not in str(refused.value)
