from .cut_short import Box
from .decoding import Photo, Pixels, decode_for_canvas, decode_image, read_size
from .errors import ErrorKind, ImageError
from .fetching import Fetched, ImageRef, fetch, fetch_images
from .names import PHOTO_SUFFIXES

__all__ = [
    "PHOTO_SUFFIXES",
    "Box",
    "ErrorKind",
    "Fetched",
    "ImageError",
    "ImageRef",
    "Photo",
    "Pixels",
    "decode_for_canvas",
    "decode_image",
    "fetch",
    "fetch_images",
    "read_size",
]
