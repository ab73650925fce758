"""Which files are photos, by their names."""

PHOTO_SUFFIXES = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff", "avif"),
        *("heic", "heif", "jxl", "jp2", "ppm", "pgm", "pbm", "pnm"),
    }
)
"""Of photos, also of some that cannot be decoded. A name without a suffix may be one, too."""
