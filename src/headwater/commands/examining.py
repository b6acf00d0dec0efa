"""doctor: is this a place where the promise can be kept?"""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from headwater.commands.options import DEFAULT_CONFIG, EXIT_FAILED, ConfigOption, err, out
from headwater.doctor import examine
from headwater.doctor_finding import FAIL, OK, WARN

_COLOURS = {OK: "green", WARN: "yellow", FAIL: "bold red"}


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Examine machine, disk, data folder and configuration, with or without a running server.

    Does fsync reach the disk, is there room, are versions, clock, permissions, ports and files as
    they should be: what was measured, and what to do. Exits 1 when a check failed; a warning is no
    failure. Nothing is changed.
    """
    with err.status("examining"):
        findings = list(examine(config))
    failed = any(one.status == FAIL for one in findings)
    if json:
        text = msgspec.json.encode({"ok": not failed, "checks": findings})
        sys.stdout.buffer.write(msgspec.json.format(text, indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        table = Table("check", "", "measured, and what to do")
        for one in findings:
            words = escape(one.measured)
            if one.remedy:
                words += f"\n[bold]what to do:[/] {escape(one.remedy)}"
            colour = _COLOURS[one.status]
            table.add_row(escape(one.check), f"[{colour}]{one.status}[/]", words)
        out.print(table)
    if failed:
        raise typer.Exit(EXIT_FAILED)
