"""What a photo is called in an export, and where it lies."""

import hashlib
import posixpath
import re

from pipelines.storage import S3_SCHEME

_HASH_DIGITS = 16
_LONGEST_STEM = 50
"""Characters, of up to four bytes each: a file's name may have 255."""
_ODD = re.compile(r"[^\w.-]")


def copied_name(uri: str) -> str:
    """The name of a photo's copy: its own, made tame, and 64 bits of its URI's hash.

    It depends on nothing but the URI, so that the same photo has the same name in every export.
    """
    stem, suffix = posixpath.splitext(posixpath.basename(uri))
    digest = hashlib.sha256(uri.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{_ODD.sub('_', stem)[:_LONGEST_STEM]}-{digest}{_ODD.sub('_', suffix)[:_HASH_DIGITS]}"


def common_folder(least: str, greatest: str) -> str:
    """The deepest folder that holds all photos between two, `/` included; "" where there is none.

    What the first and the last one of a sorted list have in common, all of them have.
    """
    common = posixpath.commonprefix([least, greatest])
    folder = common[: common.rfind("/") + 1]
    return "" if folder in ("s3:/", S3_SCHEME) else folder


def stem_of(name: str) -> str:
    return posixpath.splitext(name)[0]
