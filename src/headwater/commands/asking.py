"""query and tail: what has landed, and what is landing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from headwater.commands.options import DEFAULT_CONFIG, ConfigOption, err, errors_said, out
from headwater.config_reader import load
from headwater.errors import HeadwaterError, WrongUse
from headwater.folder import Folder
from headwater.hub_client import HubClient
from headwater.view.formats import FORMATS, for_terminal, lines_for_terminal


class Shape(StrEnum):
    """How `query` gives its answer."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


class Status(StrEnum):
    """What became of an event."""

    stored = "stored"
    duplicate = "duplicate"
    rejected = "rejected"


def ask(folder: Folder, config_path: Path, sql: str, shape: str) -> bytes:
    """The answer from the running hub, else from the store itself. Raises HeadwaterError."""
    hub = HubClient.find(folder)
    if hub is not None:
        return hub.query(sql, shape)
    # Imported here: opening the store costs a second and 300 MB that a running hub saves us.
    from headwater.parts import Parts  # noqa: PLC0415

    with Parts.alone(load(config_path), "asking it without a server") as parts:
        form = FORMATS[shape]
        return form.render(parts.query(sql, form.form))


#: A table is for reading; laying out more takes minutes.
_TABLE_ROWS_MAX = 1_000


def _table(answer: bytes) -> Table:
    found = msgspec.json.decode(answer)
    rows = found["rows"]
    table = Table()
    for column in found["columns"]:
        table.add_column(Text(for_terminal(column)))
    for row in rows[:_TABLE_ROWS_MAX]:
        table.add_row(*(Text(for_terminal(value)) for value in row))
    table.caption = "1 row" if len(rows) == 1 else f"{len(rows):,} rows"
    if len(rows) > _TABLE_ROWS_MAX:
        table.caption += f", the first {_TABLE_ROWS_MAX:,} shown; --format jsonl gives all"
    return table


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One read-only statement.")],
    config: ConfigOption = DEFAULT_CONFIG,
    format: Annotated[Shape, typer.Option(help="How the answer is given.")] = Shape.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")
    ] = None,
) -> None:
    """Ask the store a question in SQL (ClickHouse's dialect).

    Tables: events, rejected, accounting. Asks the running server when there is one, else opens the
    data folder itself. Bounded: 10 seconds, 512 MiB, 1,000,000 rows, 64 MiB of answer.
    """
    with errors_said():
        answer = ask(
            Folder(load(config).data),
            config,
            sql,
            "json" if format is Shape.table else format.value,
        )
        if format is Shape.table and output is None:
            out.print(_table(answer))
            return
        if format is Shape.table:
            raise WrongUse(
                "a table is for the terminal", remedy="add --format jsonl, csv or parquet"
            )
        if output is None and format is Shape.parquet and sys.stdout.isatty():
            raise WrongUse("Parquet is not text", remedy="add --output FILE")
        if output is None:
            if sys.stdout.isatty():
                answer = lines_for_terminal(answer.decode("utf-8", "replace")).encode()
            sys.stdout.buffer.write(answer)
            sys.stdout.buffer.flush()
            return
        try:
            output.write_bytes(answer)
        except OSError as error:
            raise HeadwaterError(
                f"{output}: {error.strerror}", remedy="give a file that can be written"
            ) from error


_COLOURS = {"stored": "green", "duplicate": "yellow", "rejected": "red"}


def _line(row: dict[str, Any]) -> Text:
    """One row of the feed: when, what became of it, whose, which, and why when it was refused."""
    status = str(row.get("status", ""))
    if status == "missed":
        return Text(f"… {row['rows']} more, faster than they can be shown", style="dim")
    at = for_terminal(row.get("received_at", ""))
    text = Text(f"{at[11:23] or at:<12}  ")
    text.append(f"{status:<9}", style=_COLOURS.get(status, ""))
    named = "/".join(for_terminal(row.get(key, "")) for key in ("account", "dialect"))
    text.append(f"  {named:<22}  ")
    text.append(for_terminal(row.get("name", "")), style="bold")
    if row.get("reason"):
        text.append(f"  {for_terminal(row['reason'])}", style="red")
    if row.get("detail"):
        text.append(f"  {for_terminal(row['detail'])}", style="dim")
    return text


def tail(
    config: ConfigOption = DEFAULT_CONFIG,
    account: Annotated[str, typer.Option(help="Only this account.")] = "",
    dialect: Annotated[str, typer.Option(help="Only this dialect.")] = "",
    name: Annotated[str, typer.Option(help="Only events of this name, exactly.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only what ended so.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Watch events as they land, rejected ones and duplicates too; Ctrl-C ends it."""
    with errors_said():
        folder = Folder(load(config).data)
        hub = HubClient.find(folder)
        if hub is None:
            raise HeadwaterError(
                f"no server is running on {folder.root}",
                remedy="start one: headwater serve --config FILE",
            )
        show: Callable[[dict[str, Any]], None] = _show_json if json else _show_line
        wanted = {
            "account": account,
            "dialect": dialect,
            "name": name,
            "status": status.value if status else "",
        }
        try:
            for row in hub.live(wanted):
                show(row)
        except KeyboardInterrupt:
            err.print()
        except OSError as error:
            raise HeadwaterError(
                f"the feed broke off: {error}", remedy="see whether the server is still running"
            ) from error


def _show_json(row: dict[str, Any]) -> None:
    line = msgspec.json.encode(row).decode()
    typer.echo(for_terminal(line) if sys.stdout.isatty() else line)


def _show_line(row: dict[str, Any]) -> None:
    out.print(_line(row), soft_wrap=True)
