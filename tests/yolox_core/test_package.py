import subprocess
import sys
from pathlib import Path

import yolox_core

ROOT = Path(__file__).parents[2]


def test_yolox_core_loads_on_a_machine_without_ray_or_pyarrow() -> None:
    code = "import sys; sys.modules.update(ray=None, pyarrow=None, fsspec=None); import yolox_core"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_public_name_exists() -> None:
    assert [name for name in yolox_core.__all__ if not hasattr(yolox_core, name)] == []
