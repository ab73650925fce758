"""From a frozen dataclass to a command line and a YAML file, and from an error to one sentence."""

import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from inspect import getdoc
from io import BufferedWriter, FileIO, TextIOWrapper
from itertools import zip_longest
from typing import Any, TextIO, TypeVar, cast

import jsonargparse
from jsonargparse import DefaultHelpFormatter

from pipelines import logs
from pipelines.errors import InputError

Config = TypeVar("Config")

EXIT_BAD_INPUT = 2
PLACEHOLDER = "CHANGE_ME"

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse(
    config_class: type[Config],
    description: str | None,
    positional: str | None = None,
    args: Sequence[str] | None = None,
) -> Config:
    """Read a config from the command line and from the YAML file named with `--config`.

    Every field is a flag of the same name and a key of the YAML file; a flag wins over the file.
    The field named by `positional` is given without a flag. A field's docstring is its help.

    Raises:
        InputError: an unknown flag, a value of the wrong type, or one the config refuses.
    """
    parser = _parser(config_class, description, positional)
    parser.prog = _program()
    args = sys.argv[1:] if args is None else args
    with _input_errors():
        values = parser.parse_args(_spell_out_switches(config_class, args)).as_dict()
        del values["config"]
        _refuse_placeholders(values)
        return config_class(**values)


def _refuse_placeholders(values: Mapping[str, Any]) -> None:
    """Raises ValueError for what infra/kubernetes has in place of a user's values."""
    for name, value in values.items():
        if PLACEHOLDER in str(value):
            raise ValueError(
                f"{name}={value!r}: {PLACEHOLDER} stands for a value of yours; those of the "
                "manifests are given in infra/kubernetes/base/values.yaml"
            )


def parse_command(
    commands: Mapping[str, type[Any]], description: str | None, args: Sequence[str] | None = None
) -> Any:
    """Read the config of one of several sub-commands, each as `parse` does.

    Args:
        commands: the config class of each sub-command, whose docstring is the command's help.

    Returns:
        An instance of the class of the command that was given.

    Raises:
        InputError: no command, an unknown one, or as `parse` does.
    """
    parser = jsonargparse.ArgumentParser(
        prog=_program(),
        description=description,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
    )
    subcommands = parser.add_subcommands(dest="command", required=True, metavar="command")
    for name, config_class in commands.items():
        doc = getdoc(config_class) or ""
        subcommands.add_subcommand(name, _parser(config_class, doc), help=doc.partition("\n")[0])
    args = sys.argv[1:] if args is None else args
    with _input_errors(*(name for name in args[:1] if name in commands)):
        values = parser.parse_args(args).as_dict()
        command = values["command"]
        del values[command]["config"]
        return commands[command](**values[command])


def _parser(
    config_class: type, description: str | None, positional: str | None = None
) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        description=description, formatter_class=_HelpFormatter, exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these flags")
    if positional:
        parser.add_argument(positional, nargs="?", default="")
    parser.add_class_arguments(
        config_class, as_group=False, skip={positional} if positional else set()
    )
    return parser


@contextmanager
def _input_errors(*command: str) -> Iterator[None]:
    """Make what the parser or a config refuses an InputError, which names the help of `command`."""
    try:
        yield
    except (jsonargparse.ArgumentError, ValueError, TypeError) as error:
        message = " ".join(str(error).split())
        program = " ".join([_program(), *command])
        raise InputError(f"{message} ({program} --help lists the flags)") from error


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of a job's docstring, whose commands are there to be copied."""


def exit_on_input_error(main: Callable[[], None]) -> Callable[[], None]:
    """Make bad input one sentence on stderr and exit code 2; anything else keeps its traceback.

    Whoever reads what is printed may stop reading, as `| head` does: the work goes on, and the exit
    code is that of the work.
    """

    @wraps(main)
    def guarded() -> None:
        sys.stdout = _as_asked(_outliving_its_reader(sys.stdout, sys.__stdout__))
        sys.stderr = _as_asked(_outliving_its_reader(sys.stderr, sys.__stderr__))
        try:
            main()
        except InputError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(EXIT_BAD_INPUT)

    return guarded


def _as_asked(stream: TextIO) -> TextIO:
    """Lines for people, or JSON objects."""
    return cast(TextIO, logs.JsonLines(stream)) if logs.are_json() else stream


class _OutlivesItsReader(FileIO):
    """A file that loses what is written to it once it is a pipe that nobody reads from."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            # The descriptor itself, for others write to it too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)


def _outliving_its_reader(stream: TextIO, of_the_process: TextIO | None) -> TextIO:
    """The same output, unless it is another's: what a test or a notebook has put there stays."""
    if stream != of_the_process:
        return stream
    file = _OutlivesItsReader(stream.fileno(), "w", closefd=False)
    return TextIOWrapper(
        BufferedWriter(file), encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )


def _program() -> str:
    """What was typed to get here, without the flags."""
    spec = sys.modules["__main__"].__spec__
    started_alone = spec is not None and spec.name.startswith("jobs.") and spec.parent == "jobs"
    if started_alone and spec is not None and spec.name != "jobs.__main__":
        return f"python -m {spec.name}"
    return sys.argv[0]


def _spell_out_switches(config_class: type, args: Sequence[str]) -> list[str]:
    """A bare `--all_runs` means true; jsonargparse wants `--all_runs true`."""
    switches = {f"--{field.name}" for field in fields(config_class) if field.type is bool}
    return [
        f"{arg}=true" if arg in switches and following not in ("true", "false") else arg
        for arg, following in zip_longest(args, args[1:])
    ]
