from .config import ReviewConfig
from .contact_sheet import Picture, contact_sheet
from .folder import WrittenReview, empty_folder, write_review
from .named import named_photos
from .run_pictures import pictures_of

__all__ = [
    "Picture",
    "ReviewConfig",
    "WrittenReview",
    "contact_sheet",
    "empty_folder",
    "named_photos",
    "pictures_of",
    "write_review",
]
