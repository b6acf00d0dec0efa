"""The tree tells the story, and keeps telling it: who may import whom, and how long a file gets."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "headwater"
#: In the order in which an event meets them; a stage imports itself and what stands left of it.
STAGES = ("accept", "decode", "journal", "resolve", "store", "view")
#: Modules that everything may import; they import no stage.
SHARED = ("clock", "config", "errors", "event", "limits", "metrics")
#: Packages that are no stage: the commands, wired like app.py.
WIRING = ("commands",)
LINES_MAX = 500
MODULES = sorted(SRC.rglob("*.py"))


def module_name(path: Path) -> str:
    """``accept.request`` for src/headwater/accept/request.py; empty for the package itself."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(source: str) -> set[str]:
    """Headwater's modules that a source imports, inside functions too, without ``headwater.``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {
            name.removeprefix("headwater.") for name in names if name.split(".")[0] == "headwater"
        }
    return found


def test_the_stages_sort_in_the_order_in_which_an_event_meets_them() -> None:
    packages = sorted(path.parent.name for path in SRC.glob("*/__init__.py"))
    assert [name for name in packages if name not in WIRING] == list(STAGES) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_nothing_to_its_right_and_no_wiring(stage: str) -> None:
    allowed = {*STAGES[: STAGES.index(stage) + 1], *SHARED, "headwater"}
    wrong = {
        f"{module_name(path)} imports {name}"
        for path in (SRC / stage).rglob("*.py")
        for name in imported(path.read_text())
        if name.split(".")[0] not in allowed
    }
    assert wrong == set()


def test_shared_modules_import_no_stage() -> None:
    wrong = {
        f"{name} imports {other}"
        for name in SHARED
        if (SRC / f"{name}.py").exists()
        for other in imported((SRC / f"{name}.py").read_text())
        if other.split(".")[0] in STAGES
    }
    assert wrong == set()


def test_dialects_do_not_know_each_other() -> None:
    dialects = {path.stem for path in (SRC / "decode").glob("*.py")} & {
        "vaix",
        "orbee",
        "nucleus",
        "vibetrace",
        "gamooga",
    }
    assert len(dialects) == 5
    for path in (SRC / "decode").glob("*.py"):
        if path.stem == "dialects":
            continue
        others = dialects - {path.stem.partition("_")[0]}
        known = {name.split(".")[1] for name in imported(path.read_text()) if "." in name}
        assert known & others == set(), path.name


def test_decoders_are_pure() -> None:
    for path in (SRC / "decode").glob("*.py"):
        taken = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        unfit = {
            "time",
            "socket",
            "random",
            "secrets",
            "os",
            "pathlib",
            "sqlite3",
            "apsw",
            "asyncio",
        }
        assert taken & unfit == set(), path.name


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("headwater.collector", ("chdb", "clickhouse_connect", "pyarrow", "starlette")),
        ("headwater.cli", ("chdb", "clickhouse_connect", "pyarrow", "starlette")),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, unwanted: tuple[str, ...]) -> None:
    """A collector stays below 150 MB and `--help` answers at once because of this."""
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert [name for name in unwanted if name in loaded] == []


def test_the_collector_does_not_know_the_store() -> None:
    """Neither itself nor through what it imports."""
    seen: set[str] = set()
    todo = ["collector"]
    while todo:
        name = todo.pop()
        path = SRC.joinpath(*name.split(".")).with_suffix(".py")
        if name in seen or not path.exists():
            continue
        seen.add(name)
        for other in imported(path.read_text()):
            todo += [other, other.rpartition(".")[0]]
    assert {name for name in seen if name.split(".")[0] in ("store", "view")} == set()
    assert "accept.http" in seen


@pytest.mark.parametrize(
    "path",
    [
        "accept/http.py",
        "accept/websocket.py",
        "accept/request.py",
        "accept/accounts.py",
        "decode/dialects.py",
        "decode/vaix.py",
        "decode/orbee.py",
        "decode/nucleus.py",
        "decode/vibetrace.py",
        "decode/gamooga.py",
        "journal/journal.py",
        "journal/sqlite.py",
        "resolve/registry.py",
        "resolve/sqlite.py",
        "store/clickhouse.py",
        "store/schema",
        "view/console.py",
        "view/live.py",
        "limits.py",
        "errors.py",
        "config.py",
        "collector.py",
        "loader.py",
        "app.py",
        "cli.py",
    ],
)
def test_what_a_newcomer_looks_for_is_where_the_design_says(path: str) -> None:
    assert (SRC / path).exists()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_module_is_about_one_thing(path: Path) -> None:
    """Short enough to be read in one go, opened by a sentence, and named for what it is."""
    text = path.read_text()
    assert len(text.splitlines()) < LINES_MAX
    assert ast.get_docstring(ast.parse(text)), "it has no docstring"
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


def test_every_error_stands_in_the_tree() -> None:
    """One tree, drawn in its docstring."""
    tree = ast.parse((SRC / "errors.py").read_text())
    drawn = ast.get_docstring(tree) or ""
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [name for name in names if name not in drawn] == []
