"""Command lines generated from an options model: one option for each field."""

import errno
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_origin

import typer
from typer.exceptions import TyperException

from forwarder.config.files import Options, read_options
from forwarder.config.options import SupervisorOptions
from forwarder.problems import Problem, ProblemsError, flag
from forwarder.rules.model import ForwardingRule

Command = Callable[..., None]


def takes_options(model: type[SupervisorOptions]) -> Callable[[Command], Command]:
    """Turn ``command(options, rules, **own)`` into a typer command with the options of ``model`` and its own.

    Values are passed as text and validated by the model, so that all errors are reported at once: one a line
    on standard error, with exit status 2.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in signature.parameters.values()
            if p.name not in ("options", "rules")
        ]

        def run(**values: Any) -> None:
            try:
                options, rules = _read(model, values)
                command(options=options, rules=rules, **values)
            except ProblemsError as error:
                refuse(error)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return _with_parameters(run, [*_parameters(model), *own])

    return decorate


def parse(model: type[Options], words: Sequence[str]) -> tuple[Options, list[ForwardingRule]]:
    """The options and starting rules in ``words``, as from a shell.

    Raises ProblemsError: every problem of the options, or one if the words cannot be parsed.
    """
    values: dict[str, Any] = {}

    def keep(**given: Any) -> None:
        values.update(given)

    app = typer.Typer(add_completion=False)
    app.command(add_help_option=False)(_with_parameters(keep, _parameters(model)))
    try:
        app(list(words), standalone_mode=False)
    except TyperException as error:
        allowed = f"what --help lists: {error.format_message()}"
        raise ProblemsError([Problem("options", shlex.join(words), allowed)]) from error
    return _read(model, values)


def _read(model: type[Options], values: dict[str, Any]) -> tuple[Options, list[ForwardingRule]]:
    """The options and rules; values of ``model`` and the file's name are removed from ``values``."""
    given = {name: values.pop(name) for name in model.model_fields}
    written = {name: value for name, value in given.items() if value not in (None, False, [])}
    return read_options(model, written, values.pop("config"))


def _with_parameters(command: Command, parameters: Sequence[inspect.Parameter]) -> Command:
    """``command`` with the signature that typer is to see."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


@contextmanager
def exit_on_full_disk() -> Iterator[None]:
    """Turn an error for a full disk or quota into one line on standard error, and status 1."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = error.filename or "output, or a file,"
        sys.stderr.write(f"error: {what} could not be written: {error.strerror}\n")
        sys.exit(1)


def refuse(error: ProblemsError) -> NoReturn:
    """Print every problem on standard error, and exit with status 2."""
    for problem in error.problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(2)


def _parameters(model: type[SupervisorOptions]) -> list[inspect.Parameter]:
    """One for each field, and ``--config``."""
    parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"{name} is not declared with option()"
        option = partial(typer.Option, flag(name), help=field.description)
        if field.annotation is bool:
            parameters.append(parameter(name, default=False, annotation=Annotated[bool, option()]))
            continue
        # Comma-separated lists are one text; an option that may be repeated is a list of them.
        repeated = get_origin(field.annotation) is tuple and not field.metadata
        kind: Any = list[str] | None if repeated else str | None
        shown = False if field.default in (None, ()) else str(field.default)
        declared = option(metavar=str(extra["metavar"]), show_default=shown)
        parameters.append(parameter(name, annotation=Annotated[kind, declared]))
    about = "TOML file of options, such as num_workers = 2. The command line takes precedence."
    file = typer.Option("--config", metavar="FILE", help=about)
    return [*parameters, parameter("config", annotation=Annotated[Path | None, file])]
