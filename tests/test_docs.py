"""The documentation keeps up with the code, or this fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.core import TyperGroup, TyperOption

from headwater import config, limits
from headwater.cli import app
from headwater.decode.dialects import DIALECTS
from headwater.metrics import Snapshot
from headwater.view.metrics_page import Hub, render

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
PAGES = sorted(
    [*TOP.glob("*.md"), *DOCS.rglob("*.md"), *(TOP / "bench").glob("*.md")],
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def words(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- links and paths ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for match in _LINK.finditer(_FENCE.sub("", words(page))):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in anchors(words(aim))):
            broken.append(target)
    assert broken == []


def anchors(text: str) -> set[str]:
    """The anchors that headings of a Markdown page get."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")
        for heading in headings
    }


def test_no_path_of_anyones_machine_stands_in_the_tree() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=TOP,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    pattern = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:home|root|Users|work)/[A-Za-z.]")
    found = []
    for name in filter(None, listed.split("\0")):
        path = TOP / name
        if not path.is_file() or path.suffix in {".lock", ".json"}:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


def test_every_dialect_has_a_page_that_the_readme_leads_to() -> None:
    readme = words(TOP / "README.md")
    for dialect in DIALECTS:
        assert (DOCS / "dialects" / f"{dialect.NAME}.md").exists()
        assert f"docs/dialects/{dialect.NAME}.md" in readme


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: str(dialect.NAME))
def test_a_dialects_page_names_every_route(dialect: Any) -> None:
    page = words(DOCS / "dialects" / f"{dialect.NAME}.md").lower()
    missing = []
    for route in dialect.ROUTES:
        fixed = [part for part in route.path.split("/") if part and not part.startswith("{")]
        if any(part.lower() not in page for part in fixed):
            missing.append(route.path)
    assert missing == []


def test_make_commands_of_the_docs_are_targets() -> None:
    makefile = words(TOP / "Makefile")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in PAGES:
        for block in re.findall(r"`[^`\n]+`|^```.*?^```", words(page), re.MULTILINE | re.DOTALL):
            named = set(re.findall(r"(?:^|`|\$ )make ([a-z]+)", block, re.MULTILINE))
            assert named <= targets, f"{page.name}: {named - targets}"
    assert {"demo", "test", "bench", "soak", "install"} <= targets


# --- configuration -----------------------------------------------------------------------------


def documented_defaults() -> dict[str, str]:
    """Dotted key -> its documented default, for every key of docs/configuration.md."""
    text = words(DOCS / "configuration.md")
    return dict(re.findall(r"^### `([^`]+)`\n\nDefault: (.+)$", text, re.MULTILINE))


def keys_of(struct: type[msgspec.Struct], prefix: str) -> dict[str, Any]:
    """Dotted key -> default, as the code has it."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        table = TABLES.get(f"{prefix}{field.name}")
        if table is not None:
            found |= keys_of(table, f"{prefix}{field.name}.")
        elif f"{prefix}{field.name}" not in (
            "data",
            "accounts",
            "accounts.NAME.name",
            "accounts.NAME.plan_text",
            "console.tokens",
        ):
            found[f"{prefix}{field.name}"] = field.default
    return found


#: Dotted path -> the struct that reads that table.
TABLES: dict[str, type[msgspec.Struct]] = {
    "collect": config.Collect,
    "browser": config.Browser,
    "console": config.Console,
    "console.tokens.NAME": config.ConsoleToken,
    "journal": config.JournalSettings,
    "registry": config.RegistrySettings,
    "store": config.StoreSettings,
    "enrich": config.EnrichSettings,
    "sessions": config.SessionSettings,
    "log": config.LogSettings,
    "accounts.NAME.vaix": config.VaixAccount,
    "accounts.NAME.vaix.iam": config.IamSettings,
    "accounts.NAME.orbee": config.OrbeeAccount,
    "accounts.NAME.nucleus": config.NucleusAccount,
    "accounts.NAME.vibetrace": config.VibetraceAccount,
    "accounts.NAME.gamooga": config.GamoogaAccount,
}
KEYS = {
    **keys_of(config.Config, ""),
    "data": "headwater-data",
    **keys_of(config.ConsoleToken, "console.tokens.NAME."),
    **keys_of(config.Account, "accounts.NAME."),
}


def test_every_configuration_key_is_documented_and_no_other() -> None:
    assert sorted(documented_defaults()) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_documented_defaults_are_those_of_the_code(key: str) -> None:
    default = KEYS[key]
    if default is None or default is msgspec.NODEFAULT:
        expected = "none"
    else:
        written = list(default) if isinstance(default, tuple) else default
        expected = f"`{msgspec.json.encode(written).decode()}`"
    assert documented_defaults()[key].split(",")[0] == expected


def test_every_struct_of_the_configuration_is_compared() -> None:
    structs = {
        value
        for value in vars(config).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == config.__name__
    }
    assert structs - set(TABLES.values()) - {config.Config, config.Account} == set()


# --- commands ----------------------------------------------------------------------------------


def commands() -> dict[str, list[TyperOption]]:
    """Command -> the options that it shows; ``person show`` for one of a group."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    every: dict[str, Any] = dict(group.commands)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            every |= {f"{name} {inner}": each for inner, each in command.commands.items()}
    return {
        name: [one for one in command.params if isinstance(one, TyperOption) and not one.hidden]
        for name, command in every.items()
    }


def test_every_command_and_option_is_documented() -> None:
    page = words(DOCS / "cli.md")
    missing = []
    for name, options in commands().items():
        section = re.search(
            rf"^## headwater {re.escape(name)}$.*?(?=^## |\Z)",
            page,
            re.MULTILINE | re.DOTALL,
        )
        if section is None:
            missing.append(name)
            continue
        for option in options:
            long = [word for word in option.opts if word.startswith("--")]
            missing += [f"{name} {word}" for word in long if word not in section[0]]
    assert missing == []


def test_every_documented_option_exists() -> None:
    page = words(DOCS / "cli.md")
    known = {
        option
        for options in commands().values()
        for parameter in options
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= known


# --- operating ---------------------------------------------------------------------------------


def as_written(name: str, value: float) -> str:
    """A bound as docs/operating.md writes it: its unit follows from its name."""
    if "_bytes" in name:
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value % size == 0:
                return f"{value // size} {unit}"
        return f"{value:,} bytes"
    if "_seconds" in name:
        return f"{value:g} s"
    return f"{value} days" if "_days" in name else f"{value:,}"


def test_operating_names_every_bound_with_its_value_and_no_other() -> None:
    page = words(DOCS / "operating.md").partition("\n## Bounds\n")[2]
    written = dict(re.findall(r"^\| `([a-z_]+_[a-z_]+)` \| ([^|]+) \|", page, re.MULTILINE))
    bounds = {
        name: as_written(name, value)
        for name, value in vars(limits).items()
        if isinstance(value, int | float)
    }
    assert len(bounds) > 20
    assert written == bounds


def test_operating_names_every_metric_and_no_other() -> None:
    counted = Snapshot(pid=1, latency_buckets=[1], latency=[1], statuses={}, events={}, refused={})
    page = render(workers={0: counted}, books=[], hub=Hub()).decode()
    families = {
        re.sub(r"_total$", "", name) for name in re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)
    }
    table = words(DOCS / "operating.md").partition("## Metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(headwater_[a-z_]+)", table.partition("Worth an alert")[0]))
    assert named == families
