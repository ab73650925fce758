import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.cli import parse, parse_command
from pipelines.errors import InputError

ROOT = Path(__file__).parent.parent.parent


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


PRINTS_THEN_WORKS = """
import sys
from pathlib import Path
from jobs.cli import exit_on_input_error
from pipelines.errors import InputError

@exit_on_input_error
def main():
    for stream in (sys.stdout, sys.stderr):
        for _ in range(2):
            print("page after page " * 10_000, file=stream)
    Path(sys.argv[1]).write_text("done")
    if sys.argv[2:]:
        raise InputError("and yet")

main()
"""


@pytest.mark.parametrize(("args", "exit_code"), [([], 0), (["bad"], 2)])
def test_a_job_whose_output_nobody_reads_on_does_its_work_and_keeps_its_exit_code(
    tmp_path: Path, args: list[str], exit_code: int
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", PRINTS_THEN_WORKS, str(tmp_path / "work"), *args]
    ended = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=writing, timeout=60)
    os.close(writing)
    assert ended.returncode == exit_code
    assert (tmp_path / "work").read_text() == "done"
