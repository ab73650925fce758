from .config import SubmitConfig
from .run import submit

__all__ = [
    "SubmitConfig",
    "submit",
]
