from .comparison import CHANGES, Comparison, Counts, compare
from .condition import Condition, parse_condition
from .config import ComparisonConfig

__all__ = [
    "CHANGES",
    "Comparison",
    "ComparisonConfig",
    "Condition",
    "Counts",
    "compare",
    "parse_condition",
]
