from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolox_core import Checkpoint, load_checkpoint

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Figures of the reference implementations; how they were made is in the folder's README."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A file of the shared data, or a skipped test."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs {path}")
        return path

    return find


@pytest.fixture(scope="session")
def official_nano(shared: Callable[[str], Path]) -> Checkpoint:
    return load_checkpoint(shared("weights/yolox_nano_coco.pth"))


@pytest.fixture(scope="session")
def forward_golden(shared: Callable[[str], Path]) -> Mapping[str, Any]:
    """Outputs of the official code with the official nano weights."""
    return np.load(shared("golden/forward_nano_160x192.npz"))
