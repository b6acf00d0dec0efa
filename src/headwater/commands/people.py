"""person: who somebody is, why, and mending it when it is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from headwater.commands.options import DEFAULT_CONFIG, ConfigOption, err, errors_said, out
from headwater.config_reader import load
from headwater.errors import HeadwaterError
from headwater.folder import Folder
from headwater.hub_client import HubClient, HubPeople
from headwater.view.formats import for_terminal, to_json

if TYPE_CHECKING:
    from headwater.people import People

JsonOption = Annotated[bool, typer.Option("--json", help="As one JSON object.")]
AccountOption = Annotated[str, typer.Option(metavar="NAME", help="Only in this account.")]
PersonArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Any id that was ever shown for the person.")
]
MergeArgument = Annotated[
    str,
    typer.Argument(
        metavar="MERGE", help="The merge's id, the id that is gone, or the event that caused it."
    ),
]
#: Wide enough for every table, where no terminal says how wide it is.
_WIDTH_MAX = 1_000


@contextmanager
def _people(config: Path) -> Iterator[HubPeople | People]:
    """Who answers: the running hub, else the store itself. Raises HeadwaterError."""
    settings = load(config)
    hub = HubClient.find(Folder(settings.data))
    if hub is not None:
        yield hub.people
        return
    # Imported here: opening the store costs a second and 300 MB that a running hub saves us.
    from headwater.parts import Parts  # noqa: PLC0415

    with Parts.alone(settings, "asking about a person without a server") as parts:
        yield parts.people


# --- how it is printed ---------------------------------------------------------------------------


def _cell(value: Any) -> Text:
    """Text that cannot steer a terminal; a time to the millisecond, in UTC."""
    text = for_terminal(value)
    if len(text) >= 20 and text[10] == "T" and text.endswith("Z"):
        text = f"{text[:10]} {text[11:23].rstrip('Z')}"
    return Text(text)


def _table(title: str | None, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows side by side. An id that is cut off cannot be copied, so ids are whole."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in columns:
        whole = column.endswith("_id") or column == "asserted_by"
        table.add_column(column.replace("_", " "), no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cards(title: str, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows one below the other, for those of which four ids would not fit side by side."""
    table = Table(title=title, title_justify="left", caption_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        for field in fields:
            table.add_row(field.replace("_", " "), _cell(row.get(field)))
        table.add_section()
    return table


def _print(*parts: RenderableType) -> None:
    console = out if out.is_terminal else Console(highlight=False, width=_WIDTH_MAX)
    for part in parts:
        console.print(part)


def _print_json(found: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.format(to_json(found), indent=2) + b"\n")
    sys.stdout.buffer.flush()


_FOUND = ("account", "namespace", "scope", "value", "person_id", "last_seen")
_IDENTITY = (
    "namespace",
    "scope",
    "value",
    "strength",
    "shared",
    "first_seen",
    "last_seen",
    "asserted_by",
)
_DEVICE = ("device", "first_seen", "last_seen", "events")
_SESSION = (
    "session_id",
    "dialect",
    "scope",
    "session",
    "started_at",
    "ended_at",
    "events",
    "errors",
    "derived",
    "over",
)
_VALUE = ("key", "value", "at", "event_id", "dialect")
_MERGE = ("merge_id", "account", "at", "kept", "gone", "cause", "joined_by", "undone_at")


def _merge_cards(title: str, merges: Iterable[Mapping[str, Any]]) -> Table:
    rows = [
        {
            **merge,
            "joined_by": " and ".join(
                f"{one['namespace']} {one['value']}" if "value" in one else one["id"]
                for one in merge["pair"]
            ),
        }
        for merge in merges
    ]
    return _cards(title, _MERGE, rows)


def _show_tables(found: Mapping[str, Any]) -> None:
    counts: Mapping[str, int] = found["counts"]

    def said(name: str, table: Table) -> Table:
        shown, count = len(found[name]), counts[name]
        if shown < count:
            table.caption = f"{shown:,} of {count:,}; headwater person export gives all"
        return table

    head = Table(show_header=False, title="Person", title_justify="left")
    head.add_column(style="bold")
    head.add_column(overflow="fold")
    for field in ("person_id", "account", "first_seen", "last_seen", "events"):
        head.add_row(field.replace("_", " "), _cell(found[field]))
    if found["asked"] != found["person_id"]:
        head.add_row("asked for", _cell(found["asked"]))
    _print(head)
    _print(said("identities", _table("Identities", _IDENTITY, found["identities"])))
    if found["devices"]:
        _print(said("devices", _table("Devices", _DEVICE, found["devices"])))
    if found["sessions"]:
        _print(said("sessions", _table("Sessions", _SESSION, found["sessions"])))
    if found["profile"]:
        _print(said("profile", _table("Profile", _VALUE, found["profile"])))
    if found.get("history"):
        _print(said("history", _table("Profile, as it came to be", _VALUE, found["history"])))
    if found["merges"]:
        _print(said("merges", _merge_cards("Merges", found["merges"])))


# --- the commands --------------------------------------------------------------------------------


def show(
    ident: PersonArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    history: Annotated[
        bool, typer.Option("--history", help="Every value that the profile ever had.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show one person: identifiers, devices, sessions, profile, merges, and which event says so.

    ID is a person's id as any table shows it, or one that it had before a merge: an id that was
    once shown leads to its person for ever.
    """
    with errors_said(), _people(config) as people:
        found = people.show(ident, history=history)
        if json:
            _print_json(found)
        else:
            _show_tables(found)


def find(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="namespace:value, or a value in any namespace.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    account: AccountOption = "",
    json: JsonOption = False,
) -> None:
    """Find people by an identifier that some event carried: exactly that one, no part of it.

    Namespaces: vaix:user, orbee:instance, orbee:duid, nucleus:user, nucleus:anon, nucleus:device,
    vibetrace:user, vibetrace:session, vibetrace:vtsid, gamooga:user, gamooga:visitor, email; and
    user for the user ids of all dialects.
    """
    with errors_said(), _people(config) as people:
        found = people.find(text, account)
        if json:
            _print_json(found)
            return
        rows = found["people"]
        table = _table(None, _FOUND, rows)
        table.caption = (
            "nobody"
            if not rows
            else "1 match"
            if len(rows) == 1
            else (f"{len(rows):,} matches{', and more' if found['more'] else ''}")
        )
        _print(table)


def merges(
    config: ConfigOption = DEFAULT_CONFIG,
    account: AccountOption = "",
    json: JsonOption = False,
) -> None:
    """List merges, the latest first: which two people became one, and the event that said so."""
    with errors_said(), _people(config) as people:
        found = people.merges(account)
        if json:
            _print_json(found)
            return
        if not found["merges"]:
            _print(Text("no merges"))
            return
        table = _merge_cards("Merges", found["merges"])
        if found["more"]:
            table.caption = "the latest; SELECT * FROM merges gives all"
        _print(table)


def _mended(merge: Mapping[str, Any], json: bool, said: str) -> None:
    if json:
        _print_json(merge)
        return
    _print(_merge_cards("Merge", [merge]), Text(said))


def undo(
    merge: MergeArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Take a merge back: both are people of their own again, as if the event had never said it.

    What joined them, a pair of identifiers, counts no more, whoever sends it, until
    `headwater person allow`. Nothing is lost: every event goes to the one that it speaks of.
    """
    with errors_said(), _people(config) as people:
        _mended(people.undo(merge), json, "Undone: they are two people.")


def allow(
    merge: MergeArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Let a merge happen again that was taken back."""
    with errors_said(), _people(config) as people:
        _mended(people.allow(merge), json, "Allowed: what joins them counts again.")


def export(
    ident: PersonArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")
    ] = None,
) -> None:
    """Give everything that is held about one person, as JSON lines.

    Each line is an object with one key that says what it is: person, identity, profile, session,
    merge, event, waiting, rejected, request, and last end, with the number of each.
    """
    with errors_said(), _people(config) as people:
        lines = people.export(ident)
        if output is None:
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        try:
            count = _write(output, lines)
        except OSError as error:
            raise HeadwaterError(
                f"{output}: {error.strerror}", remedy="give a file that can be written"
            ) from error
        err.print(Text(f"{count:,} lines in {output}"), soft_wrap=True)


def _write(output: Path, lines: Iterator[bytes]) -> int:
    """Write lines to a file that only its owner may read, under its name once it is whole."""
    first = next(lines)  # nobody there: no file
    part = output.with_name(f"{output.name}.part")
    count = 1
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(first)
            for line in lines:
                file.write(line)
                count += 1
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return count
