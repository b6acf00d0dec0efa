"""replay: decode journaled requests again, after a decoder or the configuration has changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from headwater.clock import Clock, system_clock
from headwater.commands.options import DEFAULT_CONFIG, ConfigOption, err, errors_said, out
from headwater.config_reader import load
from headwater.errors import WrongUse
from headwater.folder import Folder
from headwater.hub_client import HubClient

_AGO = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def moment(text: str, clock: Clock) -> int:
    """A time in microseconds since 1970: ``2h`` (that long ago) or ISO 8601, UTC unless it says
    otherwise. Raises WrongUse."""
    if ago := _AGO.fullmatch(text.strip()):
        return clock() - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise WrongUse(
            f'"{text}" is no time',
            remedy='write it as 2026-11-21T04:00:00Z, as 2026-11-21, or as "2h" for two hours ago',
        ) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _lines(folder: Folder, config: Path, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    hub = HubClient.find(folder)
    if hub is not None:
        yield from hub.replay(order)
        return
    # Imported here: opening the store costs a second and 300 MB that a running hub saves us.
    from headwater.parts import Parts  # noqa: PLC0415
    from headwater.view.console import ReplayOrder  # noqa: PLC0415

    with Parts.alone(load(config), "replaying without a server") as parts:
        yield {"result": parts.replay(msgspec.convert(order, ReplayOrder), lambda done: None)}


def replay(
    config: ConfigOption = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Requests received from then on: ISO 8601, or 2h.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="… and before then.")] = "",
    request_id: Annotated[
        str, typer.Option(metavar="UUID", help="One request, as events and rejected name it.")
    ] = "",
) -> None:
    """Decode requests of the journal again and put the rows in the place of the old ones.

    For after a decoder was mended or an allow-list widened: what was rejected may now be stored.
    Doing it twice changes nothing more. It reaches back as far as journal.retain_days.
    """
    with errors_said():
        if bool(since) == bool(request_id):
            raise WrongUse(
                "which requests?", remedy="give either --since TIME or --request-id UUID"
            )
        order: dict[str, Any] = {}
        if since:
            order["since"] = moment(since, system_clock)
        if until:
            order["until"] = moment(until, system_clock)
        if request_id:
            try:
                order["request_id"] = str(UUID(request_id))
            except ValueError as error:
                raise WrongUse(
                    f'"{request_id}" is no request id',
                    remedy="take one from the request_id column of events or rejected",
                ) from error
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        result: dict[str, Any] = {}
        with Progress(*columns, console=err, transient=True) as progress:
            task = progress.add_task("replaying")
            for said in _lines(Folder(load(config).data), config, order):
                if "result" in said:
                    result = said["result"]
                else:
                    done = ", ".join(f"{value} {key}" for key, value in said["progress"].items())
                    progress.update(task, description=f"replaying: {done}")
    table = Table("", "count")
    for key, value in result.items():
        table.add_row(key.replace("_", " "), str(value))
    out.print(table)
