"""bench: how fast a collector is on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headwater.commands.options import errors_said, out
from headwater.load_generator import Case, Measured, measure


def bench(
    seconds: Annotated[
        float, typer.Option(min=0.5, max=300, help="How long to send, for each kind.")
    ] = 5.0,
    connections: Annotated[
        int, typer.Option(min=1, max=1_000, help="Connections that send at once.")
    ] = 64,
) -> None:
    """Measure a collector on this machine: requests and events a second, time to acknowledgement.

    Starts a collector of its own with a fresh folder under the temporary directory and sends to it
    over loopback, so client and server share the machine's cores; every answer counted was written
    to disk first. The bench/ folder of the source has the comparison with other servers.
    """
    table = Table(title=f"{connections} connections, {seconds:g} s each, one worker")
    table.add_column("what")
    for column in ("requests/s", "events/s", "p50 ms", "p99 ms", "not acknowledged"):
        table.add_column(column, justify="right")

    def show(case: Case, found: Measured) -> None:
        per_second = found.answers / found.seconds
        table.add_row(
            case.title,
            f"{per_second:,.0f}",
            f"{per_second * case.events:,.0f}",
            f"{found.percentile(0.50) * 1_000:.1f}",
            f"{found.percentile(0.99) * 1_000:.1f}",
            f"{found.refused:,}",
        )

    with errors_said(), out.status("measuring"):
        measure(seconds=seconds, connections=connections, show=show)
    out.print(table)
