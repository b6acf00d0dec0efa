"""What every command has: the --config option, examples in its help, and how it says an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from headwater.errors import ConfigError, HeadwaterError, QueryRefused, WrongUse

EXIT_FAILED = 1
EXIT_WRONG_USE = 2

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="HEADWATER_CONFIG",
        metavar="FILE",
        help="The configuration, a TOML file.",
    ),
]
DEFAULT_CONFIG = Path("headwater.toml")


def say_error(error: HeadwaterError) -> None:
    """Where, what, and what to do, on standard error."""
    err.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
    if error.remedy:
        err.print(f"[bold]what to do:[/] {escape(error.remedy)}", soft_wrap=True)


@contextmanager
def errors_said() -> Iterator[None]:
    """Turn a HeadwaterError into its text and an exit status: 2 for wrong input, 1 for the rest."""
    try:
        yield
    except HeadwaterError as error:
        say_error(error)
        wrong_use = isinstance(error, (ConfigError, QueryRefused, WrongUse))
        raise typer.Exit(EXIT_WRONG_USE if wrong_use else EXIT_FAILED) from error


def examples(*lines: str) -> str:
    """The end of a command's help (Markdown): examples to copy, `# …` lines as comments."""
    return "\n".join(("**Examples**", "", "```sh", *lines, "```"))
