"""URIs: local paths, also as file://, and s3://bucket/key; nothing else."""

import os

from pipelines.errors import InputError

S3_SCHEME = "s3://"
_FILE_SCHEME = "file://"


def is_s3(uri: str) -> bool:
    return uri.startswith(S3_SCHEME)


def normalise_uri(uri: str) -> str:
    """An `s3://bucket/key` as it is, a local path made absolute.

    Raises:
        InputError: another scheme, a chain (`a::b`), credentials in the URI, or no bucket.
    """
    if not uri:
        raise InputError("the path is empty: give a local path or s3://bucket/prefix")
    scheme, separator, rest = uri.removeprefix(_FILE_SCHEME).partition("://")
    if not separator:
        return os.path.abspath(os.path.expanduser(scheme))
    if scheme != "s3" or "::" in scheme:
        raise InputError(f"{scheme}:// is not supported: give a local path or s3://bucket/prefix")
    bucket = rest.partition("/")[0]
    if "@" in bucket:
        raise InputError(
            "credentials inside an s3:// URI are refused, because URIs are written to tables: "
            "use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"
        )
    if not bucket or "::" in bucket:
        raise InputError(f"{uri!r} names no bucket: give s3://bucket/prefix")
    return uri


def split_s3_uri(uri: str) -> tuple[str, str]:
    """(bucket, key) of an `s3://bucket/key`; the key is taken to the letter, `?`, `#` and all."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    return bucket, key
