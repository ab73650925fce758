from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.cli import parse, parse_command
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


@dataclass(frozen=True, kw_only=True)
class Other:
    """What another command may be given."""

    name: str


COMMANDS = {"count": Config, "call": Other}


def test_a_command_gives_the_config_of_its_own_class(tmp_path: Path) -> None:
    assert parse_command(COMMANDS, "", ["count", "--size", "4"]) == Config(size=4)
    assert parse_command(COMMANDS, "", ["call", "--name", "Ann"]) == Other(name="Ann")
    (tmp_path / "call.yaml").write_text("name: Ann")
    from_file = parse_command(COMMANDS, "", ["call", "--config", str(tmp_path / "call.yaml")])
    assert from_file == Other(name="Ann")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "count,call"),
        (["cuont"], "cuont"),
        (["call"], r"name.*call --help"),
        (["call", "--size", "4"], r"--size.*call --help"),
    ],
)
def test_a_command_that_is_not_understood_is_refused(args: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse_command(COMMANDS, "", args)
