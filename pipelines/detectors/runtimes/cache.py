"""The user's cache of ONNX files, so that each checkpoint is exported once."""

import hashlib
from contextlib import suppress

from pipelines.storage import STORAGE_ERRORS, Folder, user_cache

EXPORTER_VERSION = 1
"""Another one whenever the same weights are to become another file; old files stay unused."""

_SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""What stands before the digest at a file's end: the entry `sha256` of its metadata, as protocol
buffers write it. What follows a message becomes part of it, so the whole is an ONNX file, too."""
_DIGEST = 64
"""Characters of a SHA-256 in hex."""


def kept_onnx(weights_sha256: str) -> bytes | None:
    """The ONNX file of these weights; None where there is none, or a damaged one."""
    with suppress(*_NO_CACHE):
        return _unsealed(_folder().read(_name(weights_sha256)))
    return None


def keep_onnx(weights_sha256: str, model: bytes) -> None:
    """Keep it for the next time, whole or not at all; where that cannot be, nothing happens."""
    with suppress(*_NO_CACHE):
        _folder().write(_name(weights_sha256), _sealed(model))


_NO_CACHE = (*STORAGE_ERRORS, RuntimeError)  # without a home


def _folder() -> Folder:
    return Folder(str(user_cache()))


def _name(weights_sha256: str) -> str:
    return f"{weights_sha256}-{EXPORTER_VERSION}.onnx"


def _sealed(model: bytes) -> bytes:
    return model + _SEAL + hashlib.sha256(model).hexdigest().encode()


def _unsealed(data: bytes) -> bytes | None:
    """The model; None where it is not what was sealed."""
    model = data[: -len(_SEAL) - _DIGEST]
    return model if data == _sealed(model) else None
