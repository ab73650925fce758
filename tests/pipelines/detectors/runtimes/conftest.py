import io
from pathlib import Path

import pytest

from pipelines.detectors.runtimes.exporting import export_checkpoint
from yolox_core import Checkpoint, load_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, which exported files go to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/yolox-ray"


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: bytes) -> Checkpoint:
    return load_checkpoint(io.BytesIO(tiny_checkpoint))


@pytest.fixture(scope="session")
def tiny_onnx(tiny: Checkpoint) -> bytes:
    return export_checkpoint(tiny)
