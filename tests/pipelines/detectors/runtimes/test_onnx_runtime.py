import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.detectors import ONNXRUNTIME, YOLOX
from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.detectors.isolated import IsolatedDetector
from pipelines.detectors.runtimes.exporting import export_checkpoint
from pipelines.detectors.runtimes.onnx_runtime import OnnxRuntime
from pipelines.detectors.runtimes.torch_runtime import TorchRuntime
from pipelines.detectors.yolox import YoloxDetector
from tests.pipelines.detectors.runtimes.same import assert_same
from yolox_core import Checkpoint, Convention, load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[4]


def _canvases(count: int, size: tuple[int, int] = (64, 64)) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def _assert_same(found: Sequence[object], expected: Sequence[object]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("preprocessing", ["official", "seed"])
def test_it_finds_what_torch_finds(
    preprocessing: Convention, tiny: Checkpoint, settings: DetectorSettings, tmp_path: Path
) -> None:
    about = {"class_names": tiny.class_names, "input_size": tiny.input_size}
    save_checkpoint(tmp_path / "x.pth", tiny.model, preprocessing=preprocessing, **about)
    checkpoint = load_checkpoint(tmp_path / "x.pth")
    by_onnx = OnnxRuntime(export_checkpoint(checkpoint), settings)
    by_torch = TorchRuntime((tmp_path / "x.pth").read_bytes(), settings)
    assert by_onnx.class_names == by_torch.class_names == ("cat", "dog", "bird")
    assert by_onnx.preprocessing == by_torch.preprocessing == preprocessing
    for size in ((64, 64), (96, 160)):
        canvases = _canvases(3, size)
        _assert_same(by_onnx.begin(canvases)(), by_torch.begin(canvases)())


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_what_it_finds_does_not_depend_on_its_threads(
    threads: int, tiny_onnx: bytes, settings: DetectorSettings
) -> None:
    alone = [OnnxRuntime(tiny_onnx, settings).begin(_canvases(5)[i : i + 1])()[0] for i in range(5)]
    in_threads = OnnxRuntime(tiny_onnx, replace(settings, threads=threads))
    _assert_same(in_threads.begin(_canvases(5))(), alone)


def test_weights_that_give_no_number_give_no_answer(
    tiny: Checkpoint, settings: DetectorSettings, tmp_path: Path
) -> None:
    about = {"class_names": tiny.class_names, "input_size": (64, 64), "preprocessing": "official"}
    save_checkpoint(tmp_path / "x.pth", tiny.model, **about)
    broken = load_checkpoint(tmp_path / "x.pth")
    torch.nn.init.constant_(broken.model.head.stems[0].conv.weight, torch.nan)
    assert OnnxRuntime(export_checkpoint(broken), settings).begin(_canvases(2))() == [None, None]


def _photo() -> bytes:
    return cv2.imencode(".png", _canvases(1)[0])[1].tobytes()


def _run_alone(code: str, folder: Path, model: bytes, **environment: str) -> str:
    """What a Python prints that runs the code in a process with `model`, `settings`, `photo`."""
    (folder / "model.onnx").write_bytes(model)
    (folder / "photo.png").write_bytes(_photo())
    start = f"""
import sys
from dataclasses import replace
from pathlib import Path
from pipelines.detectors.contract import DetectorSettings
from pipelines.detectors.yolox import YoloxDetector
folder = Path({str(folder)!r})
model, photo = (folder / "model.onnx").read_bytes(), (folder / "photo.png").read_bytes()
settings = DetectorSettings(
    input_size=(64, 64), score_threshold=0.0, nms_threshold=0.65, max_pixels=10**8, batch_size=4,
    threads=1, device="cpu", runtime="onnxruntime",
)
"""
    ran = subprocess.run(
        [sys.executable, "-c", start + code],
        cwd=ROOT,
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return ran.stdout.strip()


def test_a_process_that_runs_it_has_no_torch(tiny_onnx: bytes, tmp_path: Path) -> None:
    code = """
[found] = YoloxDetector(model, settings)([photo])
assert len(found.scores)
print(sorted({"torch", "torchvision", "onnxruntime", "ray", "onnx"} & set(sys.modules)))
"""
    assert _run_alone(code, tmp_path, tiny_onnx) == "['onnxruntime']"


def test_the_detector_s_process_has_no_torch_either(
    tiny_onnx: bytes, settings: DetectorSettings
) -> None:
    settings = replace(settings, runtime=ONNXRUNTIME)
    with closing(IsolatedDetector(YOLOX, tiny_onnx, settings)) as detector:
        [answer] = detector([_photo()])
        [server] = _children(os.getpid())
        [child] = _children(server)
        loaded = Path(f"/proc/{child}/maps").read_text()
    assert isinstance(answer, LabelledImage)
    assert "onnxruntime_pybind11_state" in loaded
    assert "libtorch" not in loaded


def _children(pid: int) -> list[int]:
    """Those that are a fork server, or were forked by one."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    of_ours = "pipelines.detectors.fork_server"
    return [c for c in children if of_ours in Path(f"/proc/{c}/cmdline").read_text()]


def test_memory_that_runs_out_halves_the_batch_and_then_costs_one_image(
    tiny_onnx: bytes, tmp_path: Path
) -> None:
    # What one image takes has been allocated, and stays; four threads work at four at once.
    code = """
import resource
settings = replace(settings, input_size=(640, 640), threads=4)
detector = YoloxDetector(model, settings)
large = YoloxDetector(model, replace(settings, input_size=(2560, 2560)))
assert len([*detector([b""] * 4), *large([b""] * 4)]) == 8  # starts the threads
[alone] = detector([photo])
def limit(bytes_more):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + bytes_more, resource.RLIM_INFINITY))
limit(30_000_000)
four = detector([photo] * 4)
assert [len(found.scores) for found in four] == [len(alone.scores)] * 4
print(detector._model.batch_size.current)
print([str(error.kind) for error in large([photo] * 2)])
"""
    printed = _run_alone(code, tmp_path, tiny_onnx).splitlines()
    assert int(printed[0]) < 4
    assert printed[1] == "['out_of_memory', 'out_of_memory']"


def test_onnx_runtime_keeps_no_book_about_who_runs_it(tiny_onnx: bytes, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = "YoloxDetector(model, settings)([photo]); print('done')"
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    assert _run_alone(code, tmp_path, tiny_onnx, **environment) == "done"
    assert list(home.iterdir()) == []


def test_on_photos_it_finds_what_torch_finds(shared: Path, settings: DetectorSettings) -> None:
    weights = (shared / "weights/yolox_nano_coco.pth").read_bytes()
    model = export_checkpoint(load_checkpoint(shared / "weights/yolox_nano_coco.pth"))
    settings = replace(settings, input_size=(416, 416), score_threshold=0.01)
    photos = sorted((shared / "data/coco_val79/images").iterdir())[:6]
    bodies = [photo.read_bytes() for photo in photos]
    by_torch = YoloxDetector(weights, settings)(bodies)
    by_onnx = YoloxDetector(model, replace(settings, runtime=ONNXRUNTIME))(bodies)
    _assert_same(by_onnx, by_torch)
