"""The command line of an options model: one option for each field, for every command that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from forwarder.option_reading import read_options
from forwarder.options import SupervisorOptions
from forwarder.problems import ProblemsError, flag

Command = Callable[..., None]


def takes_options(model: type[SupervisorOptions]) -> Callable[[Command], Command]:
    """Turn ``command(options, rules, **own)`` into a typer command with the options of ``model`` and its own.

    Values are taken as text and validated by the model, so that all errors come at once; they are printed
    one a line on standard error, and the exit status is 2.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in signature.parameters.values()
            if p.name not in ("options", "rules")
        ]
        config = inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option("--config", metavar="FILE", help="TOML file of options; written ones go first."),
            ],
        )

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in model.model_fields}
            written = {name: value for name, value in given.items() if value not in (None, False, [])}
            try:
                options, rules = read_options(model, written, values.pop("config"))
                command(options=options, rules=rules, **values)
            except ProblemsError as error:
                refuse(error)

        parameters = [*_parameters(model), config, *own]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def refuse(error: ProblemsError) -> None:
    """Print every problem on standard error, and leave with status 2."""
    for problem in error.problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(2)


def _parameters(model: type[SupervisorOptions]) -> list[inspect.Parameter]:
    parameters = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"{name} is not declared with option()"
        default: object = None
        kind: Any = str | None
        if field.annotation is bool:
            kind, default = bool, False
            declared = typer.Option(flag(name), help=field.description)
        else:
            # Comma-separated lists are one text; an option that may be repeated is a list of them.
            repeated = get_origin(field.annotation) is tuple and not field.metadata
            kind = list[str] | None if repeated else kind
            shown = False if field.default in (None, ()) else str(field.default)
            declared = typer.Option(
                flag(name), metavar=str(extra["metavar"]), help=field.description, show_default=shown
            )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind, declared],
            )
        )
    return parameters
