import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from pipelines.detectors.runtimes.cache import keep_onnx, kept_onnx
from pipelines.detectors.runtimes.weights import onnx_of

ROOT = Path(__file__).parents[4]
SHA = "ab" * 32


def test_what_is_kept_is_found_by_the_weights_and_by_no_others(cache: Path) -> None:
    assert kept_onnx(SHA) is None
    keep_onnx(SHA, b"model")
    assert kept_onnx(SHA) == b"model"
    assert kept_onnx("cd" * 32) is None
    assert [file.name for file in cache.iterdir()] == [f"{SHA}-1.onnx"]


def test_a_kept_file_is_an_onnx_file(cache: Path, tiny_onnx: bytes) -> None:
    keep_onnx(SHA, tiny_onnx)
    [file] = cache.iterdir()
    onnx.checker.check_model(onnx.load(str(file)))


@pytest.mark.parametrize("damage", ["empty", "cut", "cut after the model", "a bit", "longer"])
def test_a_damaged_file_is_made_anew(damage: str, cache: Path, tiny_checkpoint: bytes) -> None:
    model = onnx_of(tiny_checkpoint)
    [file] = cache.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "cut": whole[:middle],
        "cut after the model": model,
        "a bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "longer": whole + b"\0",
    }
    file.write_bytes(damaged[damage])
    assert onnx_of(tiny_checkpoint) == model
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_the_export_and_nothing_else(
    tmp_path: Path, tiny_checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert onnx_of(tiny_checkpoint) == onnx_of(tiny_checkpoint)


def test_somebody_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 123456789)
    keep_onnx(SHA, b"model")
    assert kept_onnx(SHA) is None


def test_two_processes_may_export_the_same_weights_at_once(
    cache: Path, tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    code = (
        "from pathlib import Path; from pipelines.detectors import onnx_of; "
        f"onnx_of(Path({str(tmp_path / 'tiny.pth')!r}).read_bytes())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    [file] = cache.iterdir()
    assert file.read_bytes().startswith(onnx_of(tiny_checkpoint))
