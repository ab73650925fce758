"""yolox-ray, as people start it: real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(sys.executable).with_name("yolox-ray"))
JOBS = [
    "demo",
    "diff",
    "evaluate",
    "export",
    "export-model",
    "label",
    "prepare",
    "query",
    "review",
    "shapes",
    "submit",
    "table",
    "train",
]


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def _completions(line: str) -> list[str]:
    """What bash is told by argcomplete's protocol: on descriptor 8, one a line."""
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_TYPE": "9"}
    command = f"{SCRIPT} 8>&1 9>/dev/null 1>/dev/null"
    return _run("bash", "-c", command, COMP_POINT=str(len(line)), **asked).stdout.split()


@pytest.mark.parametrize(
    "command",
    [[SCRIPT], [SCRIPT, "--help"], [sys.executable, "-m", "jobs"]],
    ids=["bare", "help", "module"],
)
def test_without_a_job_each_is_listed_with_a_line(command: list[str]) -> None:
    ran = _run(*command)
    assert ran.returncode == 0
    listed = [line.split(maxsplit=1) for line in ran.stdout.splitlines() if line.startswith("  ")]
    assert [name for name, _ in listed] == JOBS
    assert all(purpose.endswith(".") for _, purpose in listed)


def test_a_job_runs_as_if_it_had_been_started_by_itself(tmp_path: Path) -> None:
    table = str(tmp_path / "nowhere")
    through_the_door = _run(SCRIPT, "query", "--table", table, "SELECT 1")
    by_itself = _run(sys.executable, "-m", "jobs.query", "--table", table, "SELECT 1")
    assert through_the_door.returncode == by_itself.returncode == 2
    assert through_the_door.stderr == by_itself.stderr
    assert "is not a table" in by_itself.stderr


def test_the_help_names_what_was_typed() -> None:
    assert _run(SCRIPT, "label", "--help").stdout.startswith("usage: yolox-ray label ")
    by_itself = _run(sys.executable, "-m", "jobs.label", "--help")
    assert by_itself.stdout.startswith("usage: python -m jobs.label ")
    refused = _run(sys.executable, "-m", "jobs", "table", "check", "--tabel", "x")
    assert "(python -m jobs.table check --help lists the flags)" in refused.stderr


def test_a_misspelt_job_gets_the_nearest_names() -> None:
    refused = _run(SCRIPT, "prepair")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: there is no job 'prepair': did you mean prepare? ")


def test_a_shell_completes_jobs_and_their_flags() -> None:
    assert _completions("yolox-ray la") == ["label"]
    assert _completions("yolox-ray label --so") == ["--source"]
    assert set(_completions("yolox-ray train --no")) == {"--no_aug_epochs"}
