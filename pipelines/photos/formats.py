"""What is wrong with a file that does not decode, by the marks of its own format."""

from PIL import features

from pipelines.photos import heif, tiff
from pipelines.photos.errors import ErrorKind, ImageError

JPEG = b"\xff\xd8\xff"
_MAGIC = {
    JPEG: "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
_UNSUPPORTED_MAGIC = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
}
_AVIF_BRANDS = (b"avif", b"avis")


def undecodable(data: bytes) -> ImageError:
    """Why these bytes do not decode."""
    image_format = _format(data)
    if image_format:
        if _is_cut_short(data, image_format):
            return ImageError(ErrorKind.TRUNCATED, f"{image_format} without its end")
        if image_format == "TIFF" and (layout := tiff.unknown_layout(data)):
            return ImageError(ErrorKind.UNSUPPORTED_FORMAT, f"TIFF with {layout} is not supported")
        return ImageError(ErrorKind.CORRUPT, f"{image_format} that does not decode")
    if unsupported := _unsupported(data):
        return ImageError(ErrorKind.UNSUPPORTED_FORMAT, unsupported)
    return ImageError(ErrorKind.NOT_AN_IMAGE, f"starts with {data[:16]!r}")


def is_avif(data: bytes) -> bool:
    """Whether a file says that it is one."""
    return data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS


def _format(data: bytes) -> str | None:
    """Of those that can be decoded here."""
    if heif.is_heif(data) and heif.teach_pillow():
        return "HEIF"
    if is_avif(data) and features.check("avif"):
        return "AVIF"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)


def _unsupported(data: bytes) -> str | None:
    """What to say of a format that is known and not decoded."""
    if heif.is_heif(data):
        return (
            f"{data[8:12].decode()} is decoded where pillow-heif is installed: install "
            "yolox-ray[heic]"
        )
    if is_avif(data):
        return "AVIF is decoded from Pillow 11.3 on: install a newer one"
    for magic, name in _UNSUPPORTED_MAGIC.items():
        if data.startswith(magic):
            return f"{name} is not supported"
    return None


def _is_cut_short(data: bytes, image_format: str) -> bool:
    match image_format:
        case "JPEG":
            return not data.rstrip(b"\0").endswith(b"\xff\xd9")
        case "PNG":
            return b"IEND" not in data[-64:]
        case "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        case "WebP":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "BMP":
            return int.from_bytes(data[2:6], "little") > len(data)
        case "TIFF":
            return tiff.end_of_pixels(data) > len(data)
        case "HEIF" | "AVIF" | "JPEG 2000":
            return _end_of_boxes(data) > len(data)
    return False


def _end_of_boxes(data: bytes) -> int:
    """Where the last box of an ISO media file ends by its own word."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:  # too large for 32 bits
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0: as far as the file goes
            return len(data)
        at += size
    return at
