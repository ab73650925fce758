from .config import ReviewConfig
from .contact_sheet import Picture, contact_sheet
from .differences import changed_photos
from .folder import PAGE, WrittenReview, empty_folder, write_review
from .named import named_photos
from .run_pictures import pictures_of
from .sample import BoxKind, Sample

__all__ = [
    "PAGE",
    "BoxKind",
    "Picture",
    "ReviewConfig",
    "Sample",
    "WrittenReview",
    "changed_photos",
    "contact_sheet",
    "empty_folder",
    "named_photos",
    "pictures_of",
    "write_review",
]
