"""A condition for schedules, such as `lost > 5%`."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelines.comparison.comparison import Counts

_RULE = re.compile(
    r"(?P<what>lost|new|changed)\s*(?P<than>>=|<=|>|<)\s*(?P<limit>\d+(?:\.\d+)?)\s*(?P<share>%?)"
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_OF = {"lost": "before", "new": "after", "changed": "photos"}
"""What a share is one of."""


@dataclass(frozen=True)
class Condition:
    """What is compared with which limit."""

    what: str
    than: str
    limit: float
    is_share: bool
    """The limit is in percent: of the boxes before, of those after, or of the photos."""

    def value(self, counts: Counts) -> float:
        """What is compared; the share of nothing is 0."""
        count: int = getattr(counts, self.what)
        of: int = getattr(counts, _OF[self.what])
        return (100 * count / of if of else 0.0) if self.is_share else count

    def holds(self, counts: Counts) -> bool:
        return _COMPARE[self.than](self.value(counts), self.limit)


def parse_condition(text: str) -> Condition:
    """Raises ValueError for anything but one of lost, new and changed, held to a limit."""
    match = _RULE.fullmatch(text.strip())
    if not match:
        raise ValueError(
            f"fail_if={text!r}: give lost, new or changed, one of > >= < <=, and a number or a "
            "share, for example 'lost > 5%' or 'changed > 1000'"
        )
    return Condition(match["what"], match["than"], float(match["limit"]), bool(match["share"]))
