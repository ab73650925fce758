from .contact_sheet import Picture, contact_sheet
from .run_pictures import pictures_of

__all__ = [
    "Picture",
    "contact_sheet",
    "pictures_of",
]
