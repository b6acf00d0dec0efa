"""erase: take a person out of everything, and say what went."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from headwater.commands.options import DEFAULT_CONFIG, ConfigOption, err, errors_said
from headwater.commands.people import PersonArgument
from headwater.config_reader import load
from headwater.errors import WrongUse
from headwater.folder import Folder
from headwater.hub_client import HubClient


def _lines(config: Path, ident: str) -> Iterator[dict[str, Any]]:
    settings = load(config)
    hub = HubClient.find(Folder(settings.data))
    if hub is not None:
        yield from hub.people.erase(ident)
        return
    # Imported here: opening the store costs a second and 300 MB that a running hub saves us.
    from headwater.parts import Parts  # noqa: PLC0415

    with Parts.alone(settings, "erasing without a server") as parts:
        person, account = parts.people.locate(ident)
        yield {"result": parts.erase(person, account, lambda done: None)}


def _confirm(ident: str) -> None:
    if not sys.stdin.isatty():
        raise WrongUse(
            "erasing cannot be undone, and nobody is there to confirm it", remedy="add --yes"
        )
    typer.confirm(f"Erase everything about {ident}? It cannot be undone.", abort=True, err=True)


def erase(
    ident: PersonArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase one person: events, profile, identities, waiting and rejected requests, and the
    requests in the journal. Prints a receipt, which the table `erasures` keeps.

    What was received before cannot come back, a replay included; what is received later starts a
    new person. Erased requests are overwritten on this disk; backups are yours to look after.
    """
    with errors_said():
        if not yes:
            _confirm(ident)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        receipt: dict[str, Any] = {}
        with Progress(*columns, console=err, transient=True) as progress:
            task = progress.add_task("erasing")
            for said in _lines(config, ident):
                if "result" in said:
                    receipt = said["result"]
                else:
                    done = ", ".join(f"{value} {key}" for key, value in said["progress"].items())
                    progress.update(task, description=f"erasing: {done}")
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(receipt), indent=2) + b"\n")
        sys.stdout.buffer.flush()
