import pytest

from pipelines.comparison import Counts, parse_condition

COUNTS = Counts(photos=200, changed=30, before=1000, after=500, matched=450, new=50, lost=550)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("lost > 54.9%", True),  # 550 of 1000
        ("lost > 55%", False),
        ("lost >= 55%", True),
        ("new > 10 %", False),  # 50 of 500
        ("new >= 10%", True),
        ("changed < 16%", True),  # 30 of 200
        ("changed<=14.9%", False),
        (" lost > 549 ", True),
        ("lost > 550", False),
        ("new <= 50", True),
        ("changed > 0.5", True),  # photos, not a share
    ],
)
def test_a_condition_is_held_to_a_number_or_to_a_share(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(COUNTS) is holds


def test_the_share_of_nothing_is_nothing() -> None:
    nothing = Counts(photos=1, changed=0, before=0, after=0, matched=0, new=0, lost=0)
    assert not parse_condition("lost > 0%").holds(nothing)
    assert parse_condition("lost <= 0%").holds(nothing)


@pytest.mark.parametrize(
    "text",
    [
        *("", "lost", "lost >", "> 5%", "matched > 5%", "lost = 5%", "lost == 5", "lost != 5"),
        *("lost > 5% or new > 5%", "lost > -5", "lost > 5e3", "lost > .5", "lost > 5.", "LOST > 5"),
        *(
            "lost > 5%%",
            "lost > five",
            "lost > 1,000",
            "lost > nan",
            "__import__('os')",
            "lost > 5\n6",
        ),
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example 'lost > 5%'"):
        parse_condition(text)
