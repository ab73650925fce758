from .config import ReviewConfig
from .contact_sheet import Picture, contact_sheet
from .folder import WrittenReview, write_review
from .run_pictures import pictures_of

__all__ = [
    "Picture",
    "ReviewConfig",
    "WrittenReview",
    "contact_sheet",
    "pictures_of",
    "write_review",
]
