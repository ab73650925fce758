"""ONNX Runtime, told to keep what it sees to itself."""

import os
import re
from typing import TypeAlias

from pipelines.errors import InputError

# Before the import: it would tell Microsoft what is run and on what, by a thread of its own.
# https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import onnxruntime
except ImportError as error:
    raise InputError(f"ONNX Runtime is not installed ({error}): pip install onnxruntime") from error

Session: TypeAlias = onnxruntime.InferenceSession

_NO_MEMORY = ("bad_alloc", "Failed to allocate memory")
"""What its errors say, which have no type for it: of the heap, and of its own arena."""


def open_session(model: bytes, threads: int = 1) -> Session:
    """A model that is ready to run on the CPU, in so many threads.

    Raises:
        ValueError: it is not an ONNX file that can be run here.
        MemoryError: it does not fit into memory.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Where cores are shared, threads that wait by spinning take them from those that compute.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return Session(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common
        refuse_memory_error(error)
        raise ValueError(_why_not_opened(str(error))) from error


def _why_not_opened(message: str) -> str:
    if found := re.search(
        r"Opset (\d+) is under development.* till opset (\d+)", message, re.DOTALL
    ):
        return (
            f"is of opset {found[1]}, and ONNX Runtime {onnxruntime.__version__} knows them up to "
            f"{found[2]}: install a newer one, or export the checkpoint with yolox-ray export-model"
        )
    return f"not an ONNX file that can be run, or damaged: {message}"


def refuse_memory_error(error: Exception) -> None:
    """Raises MemoryError if that is what an error of ONNX Runtime means."""
    if any(words in str(error) for words in _NO_MEMORY):
        raise MemoryError(str(error)) from error
