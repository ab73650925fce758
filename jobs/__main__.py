"""The front door: `yolox-ray`, or `python -m jobs`, lists the jobs and hands over to one."""

import ast
import importlib
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

import argcomplete

from jobs.cli import exit_on_input_error
from pipelines import cluster
from pipelines.errors import InputError


@exit_on_input_error
def main() -> None:
    if "_ARGCOMPLETE" in os.environ:
        complete(os.environ["COMP_LINE"].split()[1:])
    match sys.argv[1:]:
        case [] | ["-h" | "--help", *_]:
            print(overview())
        case ["--version", *_]:
            print(version("yolox-ray"))
        case [job, *args]:
            run(job.replace("-", "_"), args)
            cluster.leave_local()


def overview() -> str:
    """Every job with a line of what it does."""
    jobs = purposes()
    width = max(map(len, jobs))
    lines = [f"  {_typed(job):{width}}  {purpose}" for job, purpose in jobs.items()]
    return "\n".join(
        [
            "usage: yolox-ray JOB [FLAGS]   (or: python -m jobs.JOB [FLAGS])",
            "",
            *lines,
            "",
            "yolox-ray JOB --help lists its flags.",
        ]
    )


def purposes() -> dict[str, str]:
    """The first line of each job's docstring, by its module; no job is imported for it."""
    trees = {path.stem: ast.parse(path.read_text()) for path in Path(__file__).parent.glob("*.py")}
    return {
        name: (ast.get_docstring(tree) or "").partition("\n")[0]
        for name, tree in sorted(trees.items())
        if not name.startswith("_") and _has_main(tree)
    }


def _typed(job: str) -> str:
    """A job's module as people type it: `export-model` runs jobs.export_model."""
    return job.replace("_", "-")


def _has_main(module: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body)


def run(job: str, args: list[str]) -> None:
    """Run a job as if it had been started by itself.

    Raises:
        InputError: there is no such job.
    """
    refuse_unknown(_typed(job), list(map(_typed, purposes())))
    program = Path(sys.argv[0]).name
    by_itself = program == "__main__.py"
    sys.argv = [f"python -m jobs.{job}" if by_itself else f"{program} {_typed(job)}", *args]
    importlib.import_module(f"jobs.{job}").main()


def refuse_unknown(job: str, jobs: Sequence[str]) -> None:
    """Raises InputError, with the nearest names, where there is no such job."""
    if job not in jobs:
        near = get_close_matches(job, jobs, n=2)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"there is no job {job!r}: {meant}there are {', '.join(jobs)}")


def complete(words: list[str]) -> None:
    """Answer a shell that asks, by argcomplete's protocol, how the words go on; then exit."""
    if words and words[0].replace("-", "_") in purposes():
        os.environ["_ARGCOMPLETE"] = "2"  # the word at which the job's own ones begin
        run(words[0].replace("-", "_"), [])
    parser = ArgumentParser()
    parser.add_argument("job", choices=list(map(_typed, purposes())))
    argcomplete.autocomplete(parser)


if __name__ == "__main__":
    main()
