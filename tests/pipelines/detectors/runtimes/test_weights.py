import io
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch

from pipelines.detectors.runtimes.exporting import export_checkpoint
from pipelines.detectors.runtimes.onnx_file import METADATA, is_onnx
from pipelines.detectors.runtimes.weights import onnx_of, read_facts
from pipelines.errors import InputError
from yolox_core import Checkpoint, save_safetensors

ROOT = Path(__file__).parents[4]


def test_a_checkpoint_its_kept_export_and_its_file_say_the_same(
    tiny_checkpoint: bytes, tiny_onnx: bytes
) -> None:
    new = read_facts(tiny_checkpoint, "w")
    onnx_of(tiny_checkpoint)
    kept, given = read_facts(tiny_checkpoint, "w"), read_facts(tiny_onnx, "w")
    for facts in (new, kept, given):
        assert (facts.preset, facts.class_names) == ("nano", ("cat", "dog", "bird"))
        assert (facts.input_size, facts.preprocessing) == ((64, 64), "official")
    assert kept == given


def test_only_weights_that_are_new_make_torch_be_imported(
    tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    code = f"""
import sys
from pathlib import Path
from pipelines.detectors import onnx_of, read_facts
weights = Path({str(tmp_path / "tiny.pth")!r}).read_bytes()
read_facts(weights, "w")
onnx_of(weights)
print(sorted({{"torch", "onnx"}} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    told = [
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert told == ["['onnx', 'torch']\n", "[]\n"]


def test_onnx_is_told_from_checkpoints_of_either_kind(
    tiny: Checkpoint, tiny_checkpoint: bytes, tiny_onnx: bytes
) -> None:
    file = io.BytesIO()
    about = {"class_names": tiny.class_names, "input_size": (64, 64), "preprocessing": "official"}
    save_safetensors(file, tiny.model, **about)
    assert is_onnx(tiny_onnx)
    for data in (tiny_checkpoint, file.getvalue(), b"", b"\x80\x04", b"<html>"):
        assert not is_onnx(data)


def test_safetensors_whose_header_s_length_begins_like_onnx_are_not_onnx() -> None:
    # The header is padded to 8 bytes; one of 264 = 0x108 bytes begins with 8.
    for padding in range(300):
        data = safetensors.torch.save({"x": torch.zeros(1)}, {"p": "p" * padding})
        if data[0] == 8:
            assert not is_onnx(data)
            return
    pytest.fail("none begins so")


def _with_metadata(model: bytes, entries: dict[str, str]) -> bytes:
    changed = onnx.load_model_from_string(model)
    onnx.helper.set_model_props(changed, entries)
    return changed.SerializeToString()


def _of_opset(model: bytes, version: int) -> bytes:
    changed = onnx.load_model_from_string(model)
    for opset in changed.opset_import:
        opset.version = version
    return changed.SerializeToString()


def test_an_onnx_file_that_cannot_be_used_is_refused_with_the_reason(
    tiny: Checkpoint, tiny_onnx: bytes
) -> None:
    newer = json.dumps({"format": "yolox_core/onnx/2"})
    complaints = {
        "x.onnx: not an ONNX file that can be run, or damaged": tiny_onnx[:1000],
        r"x.onnx: is of opset 99, and ONNX Runtime .* up to \d+: install a": _of_opset(
            tiny_onnx, 99
        ),
        "x.onnx: it does not say what the weights are for": _with_metadata(tiny_onnx, {}),
        "reads 'yolox_core/onnx/1'": _with_metadata(tiny_onnx, {METADATA: newer}),
        "metadata is not as it should be": _with_metadata(tiny_onnx, {METADATA: "{}"}),
        "x.onnx: its contents are 'decoded'": export_checkpoint(tiny, "decoded"),
        "contents are 'nms'.*--contents raw": export_checkpoint(tiny, "nms"),
    }
    for complaint, model in complaints.items():
        with pytest.raises(InputError, match=complaint):
            read_facts(model, "x.onnx")


def test_a_file_for_one_size_is_for_no_other(tiny: Checkpoint) -> None:
    model = export_checkpoint(tiny, size=(96, 64))
    assert read_facts(model, "w").input_size == (96, 64)
    assert read_facts(model, "w", (96, 64)).input_size == (96, 64)
    with pytest.raises(InputError, match=r"for canvases of \(96, 64\) only, not of \(64, 64\)"):
        read_facts(model, "w", (64, 64))
