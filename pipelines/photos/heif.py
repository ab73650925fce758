"""HEIC and HEIF, which phones write: decoded where pillow-heif is installed."""

from functools import cache

BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})


def is_heif(data: bytes) -> bool:
    """Whether a file says that it is one."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


@cache
def teach_pillow() -> bool:
    """Let PIL read HEIF, if it can be taught to; whether it now does."""
    try:
        import pillow_heif
    except ImportError:
        return False
    # It turns the pixels as the file says, once, and takes EXIF's word for it away.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)
    return True
