"""check and token: before anything runs."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from headwater.commands.options import (
    DEFAULT_CONFIG,
    EXIT_WRONG_USE,
    err,
    errors_said,
    out,
)
from headwater.config import DIALECTS, Account, Config
from headwater.config_reader import check as check_text
from headwater.config_reader import read


def _keys_of(account: Account, dialect: str) -> str:
    settings = getattr(account, dialect)
    if settings is None:
        return ""
    if dialect == "vaix":
        tokens = len(settings.tokens)
        words = f"{tokens} token{'' if tokens == 1 else 's'}"
        return f"{words}, iam" if settings.iam else words
    names = next(getattr(settings, field) for field in settings.__struct_fields__)
    return "\n".join(names)


def _summary(config: Config) -> Table:
    table = Table("account", *DIALECTS)
    for account in config.accounts.values():
        table.add_row(
            escape(account.name), *(escape(_keys_of(account, dialect)) for dialect in DIALECTS)
        )
    return table


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The configuration, a TOML file.")
    ] = DEFAULT_CONFIG,
) -> None:
    """Say what is wrong with a configuration, all of it, with line and remedy.

    Exits 0 and prints a summary when nothing is wrong, else 2. Nothing is started or changed.
    """
    with errors_said():
        text = read(file)
    config, problems = check_text(text, file.resolve().parent)
    if config is None:
        for problem in problems:
            err.print(escape(f"{file}: {problem}"), soft_wrap=True)
        said = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        err.print(f"[bold red]{said}[/]")
        raise typer.Exit(EXIT_WRONG_USE)
    out.print(f"[green]{escape(str(file))} is right[/]", soft_wrap=True)
    out.print(f"data     {escape(str(config.data))}", soft_wrap=True)
    workers = config.collect.workers
    said = "1 worker" if workers == 1 else f"{workers} workers"
    out.print(f"collect  {config.collect.listen}, {said}", soft_wrap=True)
    out.print(f"console  {config.console.listen}", soft_wrap=True)
    out.print(_summary(config))


def token() -> None:
    """Make a fresh token for VAIX clients, and the line that lets it in.

    The token itself is shown once and kept nowhere: give it to the client. The configuration holds
    only its hash.
    """
    fresh = f"hw_{secrets.token_urlsafe(32)}"  # a first character that no shell takes for an option
    digest = hashlib.sha256(fresh.encode()).hexdigest()
    typer.echo(f"token   {fresh}")
    typer.echo(f'config  tokens = ["sha256:{digest}"]')
    err.print(
        "[dim]Put the config line under \\[accounts.NAME.vaix], reload with SIGHUP, and have the "
        "client send: Authorization: Bearer <token>[/]"
    )
