from . import s3
from .bodies import get_object
from .folder import (
    STORAGE_ERRORS,
    Folder,
    folder_and_name,
    read_bytes,
    require_file,
    to_parquet,
    write_bytes,
)
from .lease import Lease, holder_of
from .local import etag_of_file, user_cache, walk_files
from .objects import ABREAST, S3Object, is_listed_in_order, list_objects
from .s3 import IMAGE_RETRIES, RetryPolicy
from .uris import S3_SCHEME, is_s3, normalise_uri, split_s3_uri
from .words import why, why_named

__all__ = [
    "ABREAST",
    "IMAGE_RETRIES",
    "S3_SCHEME",
    "STORAGE_ERRORS",
    "Folder",
    "Lease",
    "RetryPolicy",
    "S3Object",
    "etag_of_file",
    "folder_and_name",
    "get_object",
    "holder_of",
    "is_listed_in_order",
    "is_s3",
    "list_objects",
    "normalise_uri",
    "read_bytes",
    "require_file",
    "s3",
    "split_s3_uri",
    "to_parquet",
    "user_cache",
    "walk_files",
    "why",
    "why_named",
    "write_bytes",
]
