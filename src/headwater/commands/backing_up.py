"""backup and restore: a copy of the data folder, taken while it is in use, and putting one back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from headwater import backup as backups
from headwater.commands.options import DEFAULT_CONFIG, ConfigOption, err, errors_said, out
from headwater.config import Config
from headwater.config_reader import load
from headwater.folder import Folder
from headwater.hub_client import HubClient

BackupArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The backup: a folder with a manifest.json.")
]


@contextmanager
def _shown(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A line on standard error with what was done so far."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    total = 0
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(doing)

        def told(files: int, size: int) -> None:
            nonlocal total
            total += size
            progress.update(task, description=f"{doing}: {files} files, {decimal(total)}")

        yield told


def _stage(config: Config, folder: Folder) -> backups.Staged:
    hub = HubClient.find(folder)
    if hub is not None:
        return hub.backup()
    # Imported here: opening the store costs a second and 300 MB that a running hub saves us.
    from headwater.parts import Parts  # noqa: PLC0415

    with Parts.alone(config, "backing up without a server") as parts:
        return parts.stage_backup()


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; a folder that is new or empty.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Copy the data folder while it is in use, as of one moment, into a folder of its own.

    Everything acknowledged before it began is in it. Nothing stops: loading stands still for some
    tenths of a second. The copy has a manifest with the size and SHA-256 of every file.
    """
    with errors_said():
        settings = load(config)
        folder = Folder(settings.data)
        with _shown("copying") as told:
            done = backups.take(
                folder, target, staged_by=lambda: _stage(settings, folder), progress=told
            )
    out.print(f"backup   {escape(str(target))}", soft_wrap=True)
    out.print(f"as of    {done.taken_at}")
    out.print(f"holds    {len(done.files)} files, {decimal(done.bytes)}")
    out.print(f"pause    loading stood still for {done.paused_seconds:.2f} s")


def restore(
    source: BackupArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare the backup with its manifest.")
    ] = False,
) -> None:
    """Put a backup in the place of the data folder, which must be new or empty.

    Every file is compared with the manifest first. Then start the server: it loads what the journal
    holds beyond the store. People who were erased since the backup have to be erased again.
    """
    with errors_said():
        settings = None if check else load(config)
        with _shown("comparing") as told:
            done = backups.verify(source, progress=told)
        if settings is not None:
            with _shown("putting in place") as told:
                backups.restore(source, Folder(settings.data), progress=told)
    said, place = ("restored", settings.data) if settings else ("whole   ", source)
    out.print(f"{said} {escape(str(place))}", soft_wrap=True)
    out.print(f"as of    {done.taken_at}, by Headwater {done.headwater}")
    out.print(f"holds    {len(done.files)} files, {decimal(done.bytes)}")
