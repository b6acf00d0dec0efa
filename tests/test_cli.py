"""The command line, run as a user runs it: what it prints, and the status it ends with."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from headwater import __version__
from headwater.cli import app
from headwater.commands.replaying import moment
from headwater.config_reader import check
from headwater.errors import WrongUse
from tests.served import HEADWATER

ACCOUNT = '[accounts.acme.nucleus]\napps = ["app1"]\n'
COMMANDS = (
    "serve",
    "collect",
    "load",
    "demo",
    "check",
    "doctor",
    "token",
    "query",
    "tail",
    "replay",
    "erase",
    "backup",
    "restore",
    "bench",
    "person",
)


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HEADWATER), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "120"},
    )


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"headwater {__version__}\n"


def test_the_commands_are_those_of_the_design() -> None:
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert tuple(group.commands) == COMMANDS


PERSON = tuple(
    f"person {command}" for command in ("show", "find", "merges", "undo", "allow", "export")
)


@pytest.mark.parametrize("command", [*COMMANDS, *PERSON])
def test_every_commands_help_ends_with_examples_of_that_command(command: str) -> None:
    found = get_command(app)
    for word in command.split():
        assert isinstance(found, typer.core.TyperGroup)
        found = found.commands[word]
    epilog = found.epilog
    assert epilog is not None
    assert epilog.startswith("**Examples**")
    assert f"headwater {command}" in epilog


def test_help_is_shown_and_shows_the_examples() -> None:
    done = run("query", "--help")
    assert done.returncode == 0
    assert "Examples" in done.stdout
    assert "headwater query 'SELECT * FROM accounting'" in done.stdout


def test_an_unknown_command_and_an_unknown_option_end_with_2() -> None:
    assert run("serv").returncode == 2
    assert run("serve", "--confg", "x").returncode == 2


def test_a_token_goes_with_the_hash_that_the_configuration_takes() -> None:
    done = run("token")
    assert done.returncode == 0
    token = re.search(r"^token +(\S+)$", done.stdout, re.MULTILINE)
    line = re.search(r"^config +(.*)$", done.stdout, re.MULTILINE)
    assert token is not None
    assert line is not None
    assert len(token[1]) >= 40
    config, problems = check(f"[accounts.a.vaix]\n{line[1]}\n", Path("/srv"))
    assert config is not None, problems
    vaix = config.accounts["a"].vaix
    assert vaix is not None
    assert vaix.tokens == (f"sha256:{hashlib.sha256(token[1].encode()).hexdigest()}",)


def test_two_tokens_differ() -> None:
    assert run("token").stdout != run("token").stdout


def test_check_says_what_a_right_file_would_serve(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text(ACCOUNT)
    done = run("check", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "headwater.toml is right" in done.stdout
    assert "127.0.0.1:8080, 1 worker" in done.stdout
    assert "app1" in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "headwater.toml"], "nothing else is made"


def test_check_says_everything_that_is_wrong_with_line_and_remedy(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(f'[accounts.acme.vaix]\ntokens = ["plain"]\n[collect]\nworker = 2\n{ACCOUNT}')
    done = run("check", str(file))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f'{file}: line 2: accounts.acme.vaix.tokens[0]: expected "sha256:" and 64 hex digits'
        ' - run "headwater token"',
        f'{file}: line 4: collect.worker: unknown key - did you mean "workers"?',
        "2 problems",
    ]


def test_a_configuration_that_is_wrong_ends_every_command_with_2(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text("[collect]\nworkers = 0\n" + ACCOUNT)
    for command in (["serve"], ["collect"], ["load"], ["query", "SELECT 1"], ["tail"]):
        done = run(*command, "--config", str(file))
        assert done.returncode == 2, (command, done.stderr)
        assert "line 2: collect.workers" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_missing_configuration_names_the_file_and_the_option(tmp_path: Path) -> None:
    done = run("serve", folder=tmp_path)
    assert done.returncode == 2
    assert "headwater.toml: No such file or directory" in done.stderr
    assert "--config" in done.stderr


def test_tail_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text(ACCOUNT)
    done = run("tail", folder=tmp_path)
    assert done.returncode == 1
    assert "no server is running" in done.stderr
    assert "headwater serve" in done.stderr


def test_replay_asks_which_requests(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text(ACCOUNT)
    for arguments in ([], ["--since", "1h", "--request-id", "x"]):
        done = run("replay", *arguments, folder=tmp_path)
        assert done.returncode == 2
        assert "--since TIME or --request-id UUID" in done.stderr


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-21T04:00:00Z", 1_795_233_600_000_000),
        ("2026-11-21 04:00:00.000001", 1_795_233_600_000_001),
        ("2026-11-21T05:00:00+01:00", 1_795_233_600_000_000),
        ("2026-11-21", 1_795_219_200_000_000),
        ("90s", 910_000_000),
        ("2h", 1_000_000_000 - 7_200_000_000),
        ("1d", 1_000_000_000 - 86_400_000_000),
    ],
)
def test_a_time_is_iso_8601_in_utc_or_that_long_ago(text: str, microseconds: int) -> None:
    assert moment(text, lambda: 1_000_000_000) == microseconds


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "-2h", "2026-13-01"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(WrongUse, match="two hours ago"):
        moment(text, lambda: 0)
