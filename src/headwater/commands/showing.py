"""demo: the whole path at work, on recorded traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater import demo as show
from headwater.commands.options import errors_said


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after the table instead of staying up.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep everything there; it must be empty or new."),
    ] = None,
) -> None:
    """Start a server on free ports, play recorded traffic of all five dialects, show what landed.

    The traffic: exchanges recorded from real Nucleus clients, played over WebSocket, and the
    examples of the vendors' own pages, over HTTP. Stays up until Ctrl-C, for `headwater query` and
    `headwater tail` to look around; without --data the folder is removed at the end.
    """
    with errors_said():
        status = show.run(once=once, data=data)
    raise typer.Exit(status)
