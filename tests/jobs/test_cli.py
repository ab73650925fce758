from dataclasses import dataclass

import pytest

from jobs.cli import parse
from pipelines.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a job may be given."""

    quick: bool = False
    size: int = 3
    """Any number."""


@pytest.mark.parametrize(
    ("args", "quick"),
    [
        ([], False),
        (["--quick"], True),
        (["--quick", "--size", "4"], True),
        (["--quick", "true"], True),
        (["--quick", "false"], False),
        (["--quick=false"], False),
    ],
)
def test_a_switch_is_given_bare_or_with_a_value(args: list[str], quick: bool) -> None:
    assert parse(Config, "", args=args).quick is quick


@pytest.mark.parametrize("args", [["--quik"], ["--size", "three"], ["--quick", "perhaps"]])
def test_what_is_not_understood_is_refused(args: list[str]) -> None:
    with pytest.raises(InputError, match="lists the flags"):
        parse(Config, "", args=args)
