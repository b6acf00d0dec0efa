"""The command line: every command, its help and its examples."""

from __future__ import annotations

from typing import Annotated

import typer

import headwater
from headwater.commands.asking import query, tail
from headwater.commands.backing_up import backup, restore
from headwater.commands.checking import check, token
from headwater.commands.erasing import erase
from headwater.commands.examining import doctor
from headwater.commands.measuring import bench
from headwater.commands.options import examples
from headwater.commands.people import allow, export, find, merges, show, undo
from headwater.commands.replaying import replay
from headwater.commands.running import collect, load, serve
from headwater.commands.showing import demo

app = typer.Typer(
    name="headwater",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "# see it work, with recorded traffic, in a folder of its own",
        "headwater demo",
        "# write a configuration, check it, run it",
        "headwater check headwater.toml",
        "headwater serve --config headwater.toml",
        "# what has landed",
        "headwater query 'SELECT * FROM accounting' --config headwater.toml",
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headwater {headwater.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and end."
        ),
    ] = False,
) -> None:
    """One event collector that speaks five tracking APIs: VAIX, Orbee, Nucleus, Vibetrace, Gamooga.

    Every acknowledged request is on disk; every event is in SQL within a second.
    """


app.command(
    epilog=examples(
        "headwater serve --config headwater.toml",
        "# reload accounts and tokens",
        "kill -HUP $(pgrep -of 'headwater serve')",
    )
)(serve)
app.command(epilog=examples("headwater collect --config headwater.toml"))(collect)
app.command(epilog=examples("headwater load --config headwater.toml"))(load)
app.command(
    epilog=examples(
        "headwater demo",
        "# end by itself, keep the data",
        "headwater demo --once --data /tmp/headwater-demo",
    )
)(demo)
app.command(epilog=examples("headwater check headwater.toml"))(check)
app.command(
    epilog=examples(
        "headwater doctor --config headwater.toml",
        "# what is not well, as JSON",
        "headwater doctor --json | jq '.checks[] | select(.status != \"ok\")'",
    )
)(doctor)
app.command(epilog=examples("headwater token"))(token)
app.command(
    epilog=examples(
        "headwater query 'SELECT * FROM accounting'",
        "headwater query 'SELECT dialect, name, count() FROM events GROUP BY ALL'",
        "# a property, and everything as a file",
        "headwater query 'SELECT properties.sku, properties.price FROM events LIMIT 10'",
        "headwater query 'SELECT * FROM events' --format parquet --output events.parquet",
    )
)(query)
app.command(
    epilog=examples(
        "headwater tail --config headwater.toml",
        "# only what is refused, as JSON",
        "headwater tail --status rejected --json",
        "headwater tail --account acme --dialect vaix --name clicks:event",
    )
)(tail)
app.command(
    epilog=examples(
        "headwater replay --since 2h",
        "headwater replay --since 2026-11-21T04:00:00Z --until 2026-11-21T05:00:00Z",
        "headwater replay --request-id 019aa0c2-7b1e-7c11-9d1a-3f0a5b0f9f10",
    )
)(replay)

person = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Who somebody is and why; take a merge back; give out all that is held.",
)
app.add_typer(
    person,
    name="person",
    epilog=examples(
        "headwater person find email:jane@example.com",
        "headwater person show 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1",
        "# the wrong two were joined",
        "headwater person merges --account acme",
        "headwater person undo 0d4be1c6-53a7-8f0e-9b12-7c6a5d4e3f21",
    ),
)
person.command(
    epilog=examples(
        "headwater person show 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1",
        "# where every value of the profile came from, since the beginning",
        "headwater person show 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1 --history",
    )
)(show)
person.command(
    epilog=examples(
        "headwater person find email:jane@example.com",
        "headwater person find gamooga:visitor:v1 --account acme",
        "# in any namespace",
        "headwater person find U-1048",
    )
)(find)
person.command(epilog=examples("headwater person merges --account acme"))(merges)
person.command(
    epilog=examples("headwater person undo 0d4be1c6-53a7-8f0e-9b12-7c6a5d4e3f21"),
)(undo)
person.command(
    epilog=examples("headwater person allow 0d4be1c6-53a7-8f0e-9b12-7c6a5d4e3f21"),
)(allow)
person.command(
    epilog=examples(
        "headwater person export 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1 -o jane.jsonl",
        "# only the events",
        "headwater person export 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1 | jq 'select(.event).event'",
    )
)(export)
app.command(
    epilog=examples(
        "headwater person find email:jane@example.com",
        "headwater erase 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1",
        "# the receipt into a file, no question asked",
        "headwater erase 6f1c5e0a-9d2b-8c41-a7e3-0b9f54d2c8e1 --yes > receipt.json",
    )
)(erase)
app.command(
    epilog=examples(
        "headwater backup /mnt/backup/headwater-2026-11-21 --config headwater.toml",
        "# is it whole?",
        "headwater restore /mnt/backup/headwater-2026-11-21 --check",
    )
)(backup)
app.command(
    epilog=examples(
        "headwater restore /mnt/backup/headwater-2026-11-21 --config headwater.toml",
        "headwater serve --config headwater.toml",
    )
)(restore)
app.command(
    epilog=examples(
        "headwater bench",
        "# longer, and more connections",
        "headwater bench --seconds 20 --connections 256",
    )
)(bench)


def main() -> None:
    """The entry point of the `headwater` script."""
    app(prog_name="headwater")
