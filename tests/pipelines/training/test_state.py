import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.training.state import StateStore


def test_there_is_no_state_before_the_first(tmp_path: Path) -> None:
    assert StateStore(Folder(str(tmp_path))).newest() == (None, [])


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_the_newest_state_is_read_back_and_one_older_is_kept(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if place == "disk":
        output = Folder(str(tmp_path))
    else:
        output = Folder(f"s3://{request.getfixturevalue('bucket').name}/run")
    store = StateStore(output)
    for epoch, step in ((1, 0), (1, 30), (2, 0), (10, 0)):
        store.save({"weights": torch.full((3,), float(epoch))}, epoch, step)
    state, notes = store.newest()
    assert state is not None
    assert state["weights"].tolist() == [10, 10, 10]
    assert notes == []
    assert output.list() == [
        "states/epoch-00002-step-0000000.pt",
        "states/epoch-00010-step-0000000.pt",
    ]


def test_a_damaged_state_gives_way_to_the_one_before_and_is_told_of(tmp_path: Path) -> None:
    store = StateStore(Folder(str(tmp_path)))
    for epoch in (1, 2):
        store.save({"epoch": epoch}, epoch, 0)
    newest = tmp_path / "states/epoch-00002-step-0000000.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    state, notes = store.newest()
    assert state == {"epoch": 1}
    assert len(notes) == 1
    assert "epoch-00002-step-0000000.pt is damaged" in notes[0]


def test_a_run_does_not_start_anew_where_all_states_are_damaged(tmp_path: Path) -> None:
    store = StateStore(Folder(str(tmp_path)))
    for epoch in (1, 2):
        store.save({"epoch": epoch}, epoch, 0)
    for path in (tmp_path / "states").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"all 2 states in .*states are damaged.* another output"):
        store.newest()


def test_a_state_that_cannot_be_read_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(folder: Folder, name: str) -> bytes:
        raise PermissionError(f"{name}: access denied")

    store = StateStore(Folder(str(tmp_path)))
    store.save({"epoch": 1}, 1, 0)
    monkeypatch.setattr(Folder, "read", denied)
    with pytest.raises(PermissionError, match=r"epoch-00001.*access denied"):
        store.newest()


KILLED_WHILE_WRITING = """
import os, signal, sys
import torch
from pipelines.storage.folder import Folder
from pipelines.training.state import StateStore

store = StateStore(Folder(sys.argv[1]))
store.save({"epoch": 1}, 1, 0)
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # the bytes are there, the name is not
store.save({"epoch": 2}, 2, 0)
"""


def test_a_process_killed_while_it_writes_leaves_the_state_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    state, notes = StateStore(Folder(str(tmp_path))).newest()
    assert state == {"epoch": 1}
    assert len(notes) == 1
    assert "was being written when the run was killed: left out" in notes[0]
    assert os.listdir(tmp_path) == ["states"]
