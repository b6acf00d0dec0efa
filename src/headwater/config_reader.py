"""From TOML text to a Config, or to the list of everything that is wrong with it.

:func:`load` reads a file and raises ConfigError with all of its problems, :func:`check` gives them
as a list. The reader is one pass that never stops at the first problem: each value is taken by a
method that notes what is wrong, says what to do, and goes on with the default.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headwater import config_values as values
from headwater.config import (
    CONSOLE_SCOPES,
    LOG_FORMATS,
    LOG_LEVELS,
    Account,
    Browser,
    Collect,
    Config,
    Console,
    ConsoleToken,
    EnrichSettings,
    GamoogaAccount,
    IamSettings,
    JournalSettings,
    LogSettings,
    NucleusAccount,
    OrbeeAccount,
    RegistrySettings,
    SessionSettings,
    StoreSettings,
    VaixAccount,
    VibetraceAccount,
)
from headwater.config_values import Wrong
from headwater.errors import ConfigError
from headwater.toml_lines import Path as KeyPath
from headwater.toml_lines import line_of, lines

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


_COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"  # an example of a company's id


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: `line` counts from 1, `where` is the key's full name."""

    line: int
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        said = f"{self.where}: {self.what}" if self.where else self.what
        return f"line {self.line}: {said} - {self.remedy}"


def _shown(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def _kind(value: object) -> str:
    names: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number with a fraction"),
        (str, "a text"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "a date")


class _Report:
    """The problems of one file, and which account holds which key."""

    def __init__(self, found: Mapping[KeyPath, int]) -> None:
        self._lines = dict(found)
        self.problems: list[Problem] = []
        self._holders: dict[tuple[str, str], KeyPath] = {}

    def line(self, path: KeyPath) -> int:
        return line_of(self._lines, path)

    def wrong(self, path: KeyPath, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.line(path), _shown(path), what, remedy))

    def claim(self, what: str, key: str, path: KeyPath) -> None:
        """One key leads to one account: the second holder of a key is a problem."""
        first = self._holders.setdefault((what, key), path)
        if first != path:
            self.wrong(
                path,
                f"this {what} is already given at {_shown(first)} (line {self.line(first)})",
                f"one {what} leads to one account: remove one of the two",
            )


class _Table:
    """One TOML table under inspection: what is not taken by the end is an unknown key."""

    def __init__(self, report: _Report, values: dict[str, Any], path: KeyPath) -> None:
        self._report = report
        self.values = values
        self.path = path
        self._known: list[str] = []

    def has(self, key: str) -> bool:
        return key in self.values

    def at(self, *parts: str | int) -> KeyPath:
        return (*self.path, *parts)

    def _take(self, key: str, kind: type, wanted: str, remedy: str) -> Any:
        self._known.append(key)
        if key not in self.values:
            return None
        value = self.values[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self._report.wrong(self.at(key), f"expected {wanted}, got {_kind(value)}", remedy)
            return None
        return value

    def text(self, key: str, default: T, parse: Callable[[str], T], remedy: str = "") -> T:
        value = self._take(key, str, "a text", remedy or 'put it in "quotes"')
        return default if value is None else self._parsed(self.at(key), value, parse, default)

    def count(self, key: str, default: int, low: int, high: int) -> int:
        wanted = f"a whole number from {low} to {high}"
        value = self._take(key, int, wanted, f"{default} is the default")
        if value is None:
            return default
        if not low <= value <= high:
            self._report.wrong(
                self.at(key), f"expected {wanted}, got {value}", f"{default} is the default"
            )
            return default
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, bool, "true or false", f"{str(default).lower()} is the default")
        return default if value is None else bool(value)

    def texts(
        self, key: str, parse: Callable[[str], str], *, claim: str = "", example: str
    ) -> tuple[str, ...] | None:
        """A list of texts, None when the key is absent."""
        value = self._take(key, list, "a list of texts", f"write {key} = [{example}]")
        if value is None:
            return () if self.has(key) else None
        taken = []
        for place, item in enumerate(value):
            path = self.at(key, place)
            if not isinstance(item, str):
                self._report.wrong(
                    path, f"expected a text, got {_kind(item)}", f"write {key} = [{example}]"
                )
                continue
            parsed = self._parsed(path, item, parse, None)
            if parsed is not None:
                taken.append(parsed)
                if claim:
                    self._report.claim(claim, parsed, path)
        return tuple(dict.fromkeys(taken))

    def _parsed(self, path: KeyPath, value: str, parse: Callable[[str], T], default: T) -> T:
        try:
            return parse(value)
        except Wrong as wrong:
            self._report.wrong(path, wrong.what, wrong.remedy)
            return default

    def table(self, key: str) -> _Table | None:
        value = self._take(key, dict, "a table", f"write [{_shown(self.at(key))}] on a line")
        return None if value is None else _Table(self._report, value, self.at(key))

    def needs(self, key: str, example: str) -> None:
        if key not in self.values:
            self._report.wrong(self.path, f'"{key}" is missing', f"add {key} = {example}")

    def close(self) -> None:
        """Report the keys that nobody asked for, with the nearest known name."""
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1, 0.6)
                known = ", ".join(sorted(self._known))
                remedy = f'did you mean "{near[0]}"?' if near else f"known here: {known}"
                self._report.wrong(self.at(key), "unknown key", remedy)


# --- the file, table by table ------------------------------------------------------------------


def _iam(table: _Table, report: _Report, folder: Path) -> IamSettings:
    keys = table.text("keys", "", values.keys(folder))
    table.needs("keys", '"jwks.json"')
    audience = table.text("audience", "", values.filled)
    table.needs("audience", '"api.vaix.ai"')
    issuer = table.text("issuer", "", values.filled)
    table.needs("issuer", '"https://auth.example.com/"')
    clients = table.texts("clients", values.filled, example='"client-id"')
    if not clients:
        report.wrong(
            table.at("clients") if clients is not None else table.path,
            "no client is named",
            'add clients = ["client-id"]: which client_id, azp or sub stands for this account',
        )
    for place, client in enumerate(clients or ()):
        report.claim("iam client", f"{issuer}\0{client}", table.at("clients", place))
    shared = keys.startswith("secret:")
    default = ("HS256",) if shared else ("RS256",)
    algorithms = table.texts("algorithms", values.algorithm, example='"RS256"') or default
    if keys and shared != all(name == "HS256" for name in algorithms):
        # A public key must never be usable as a shared secret (RFC 8725, section 2.1).
        report.wrong(
            table.at("algorithms"),
            "HS256 goes with a shared secret, RS256 and ES256 with public keys",
            'use "HS256" with keys = "secret:…", the others with a JWKS',
        )
    table.close()
    return IamSettings(
        keys=keys,
        audience=audience,
        issuer=issuer,
        clients=clients or (),
        algorithms=algorithms,
    )


def _vaix(table: _Table, report: _Report, folder: Path) -> VaixAccount:
    tokens = table.texts("tokens", values.token, claim="token", example='"sha256:…"')
    groups = table.texts("groups", values.filled, example='"group-a"')
    event_types = table.texts("event_types", values.event_type, example='"clicks:event"')
    iam = table.table("iam")
    if tokens is None and iam is None:
        report.wrong(
            table.path,
            "nobody could send: neither tokens nor iam",
            'add tokens = ["sha256:…"]; "headwater token" makes one',
        )
    settings = None if iam is None else _iam(iam, report, folder)
    table.close()
    return VaixAccount(tokens=tokens or (), groups=groups, event_types=event_types, iam=settings)


def _ids(table: _Table, key: str, parse: Callable[[str], str], claim: str, example: str) -> Any:
    """The list of ids by which a dialect names this account; it must be there."""
    table.needs(key, f"[{example}]")
    return table.texts(key, parse, claim=claim, example=example) or ()


def _account(table: _Table, report: _Report, name: str, folder: Path) -> Account:
    if not _NAME.fullmatch(name):
        report.wrong(
            table.path,
            "an account's name is 1 to 64 letters, digits, dots, dashes or underscores",
            "rename it, for example [accounts.acme]",
        )
    shared = table.texts("shared_user_ids", values.dialect, example='"vaix", "nucleus"') or ()
    ip = table.text("ip", "keep", values.ip_policy)
    plan, plan_text = table.text("plan", ("", ""), values.plan(folder))
    signals = table.texts("privacy_signals", values.privacy_signal, example='"dnt", "gpc"') or ()
    vaix, orbee, nucleus = table.table("vaix"), table.table("orbee"), table.table("nucleus")
    vibetrace, gamooga = table.table("vibetrace"), table.table("gamooga")
    account = Account(
        name=name,
        shared_user_ids=shared,
        ip=ip,
        privacy_signals=signals,
        plan=plan,
        plan_text=plan_text,
        vaix=_vaix(vaix, report, folder) if vaix else None,
        orbee=OrbeeAccount(
            trackers=_ids(orbee, "trackers", values.tracker, "tracker", '"1/1"'),
            lenient=orbee.flag("lenient", False),
        )
        if orbee
        else None,
        nucleus=NucleusAccount(apps=_ids(nucleus, "apps", values.app, "app", '"my-app"'))
        if nucleus
        else None,
        vibetrace=VibetraceAccount(
            accounts=_ids(vibetrace, "accounts", values.segment, "Vibetrace account", '"ACCT123"')
        )
        if vibetrace
        else None,
        gamooga=GamoogaAccount(
            companies=_ids(gamooga, "companies", values.uuid, "company", f'"{_COMPANY}"')
        )
        if gamooga
        else None,
    )
    for inner in (orbee, nucleus, vibetrace, gamooga):
        if inner:
            inner.close()
    table.close()
    return account


def _console_tokens(
    console: _Table, report: _Report, accounts: Mapping[str, Account]
) -> dict[str, ConsoleToken]:
    tokens: dict[str, ConsoleToken] = {}
    named = console.table("tokens")
    for name in named.values if named else ():
        assert named is not None
        table = named.table(name)
        if not table:
            continue
        if not _NAME.fullmatch(name):
            report.wrong(table.path, "not a token's name", "use letters, digits, - and _")
        held = table.text("hash", "", values.token)
        table.needs("hash", '"sha256:…"; run "headwater token"')
        kept_to = table.texts("accounts", values.filled, example='"acme"')
        for account in kept_to or ():
            if account not in accounts:
                report.wrong(
                    table.at("accounts"),
                    f'there is no account "{account}"',
                    "name a configured one",
                )
        scope = table.text("scope", "read", values.one_of(CONSOLE_SCOPES))
        if scope == "admin" and kept_to is not None:
            report.wrong(
                table.at("scope"),
                "a token of some accounts may read only: a replay or a backup is of all",
                'leave "accounts" out, or write scope = "read"',
            )
        tokens[name] = ConsoleToken(hash=held, scope=scope, accounts=kept_to)
        table.close()
    return tokens


def _top(root: _Table, report: _Report, folder: Path) -> Config:
    data = root.text("data", "headwater-data", values.filled)
    collect, console = root.table("collect"), root.table("console")
    browser = root.table("browser")
    journal, registry, store = root.table("journal"), root.table("registry"), root.table("store")
    enrich, sessions, log = root.table("enrich"), root.table("sessions"), root.table("log")
    empty = _Table(report, {}, ())
    collect, console, browser = collect or empty, console or empty, browser or empty
    journal, registry, store = journal or empty, registry or empty, store or empty
    enrich, sessions, log = enrich or empty, sessions or empty, log or empty
    listen = collect.text("listen", Collect().listen, values.address)
    listen_console = console.text("listen", Console().listen, values.address)
    if listen == listen_console and not listen.endswith(":0"):
        report.wrong(
            console.at("listen"),
            f"collect.listen is {listen} too",
            "give the console a port of its own: it must not be public",
        )
    accounts: dict[str, Account] = {}
    named = root.table("accounts")
    for name in named.values if named else ():
        assert named is not None
        inner = named.table(name)
        if inner:
            accounts[name] = _account(inner, report, name, folder)
    if not root.values.get("accounts", {}):
        report.wrong(
            ("accounts",), "there is no account", "add [accounts.NAME] and a table of one dialect"
        )
    config = Config(
        data=(folder / Path(data).expanduser()).resolve(),
        collect=Collect(
            listen=listen,
            workers=collect.count("workers", Collect().workers, 1, 64),
            public_host=collect.text("public_host", "", values.host),
            trusted_proxies=collect.texts("trusted_proxies", values.network, example='"10.0.0.0/8"')
            or (),
            rate_limit_per_ip=collect.count("rate_limit_per_ip", 0, 0, 1_000_000_000),
        ),
        browser=Browser(script=browser.text("script", Browser().script, values.script)),
        console=Console(
            listen=listen_console,
            hosts=console.texts("hosts", values.host, example='"headwater.internal"') or (),
            tokens=_console_tokens(console, report, accounts),
        ),
        journal=JournalSettings(
            url=journal.text("url", "sqlite:", values.engine("journal")),
            retain_days=journal.count("retain_days", JournalSettings().retain_days, 1, 36_500),
            # 64 MiB is one segment: below it nothing could ever be freed.
            max_bytes=journal.count(
                "max_bytes", JournalSettings().max_bytes, 64 * 1024 * 1024, 2**62
            ),
        ),
        registry=RegistrySettings(url=registry.text("url", "sqlite:", values.engine("registry"))),
        store=StoreSettings(url=store.text("url", "chdb:", values.engine("store"))),
        enrich=EnrichSettings(
            country_file=enrich.text("country_file", "", values.country_file(folder))
        ),
        sessions=SessionSettings(
            idle_minutes=sessions.count("idle_minutes", SessionSettings().idle_minutes, 1, 1_440)
        ),
        log=LogSettings(
            format=log.text("format", LogSettings().format, values.one_of(LOG_FORMATS)),
            level=log.text("level", LogSettings().level, values.one_of(LOG_LEVELS)),
        ),
        accounts=accounts,
    )
    for table in (collect, browser, console, journal, registry, store, enrich, sessions, log, root):
        if table is not empty:
            table.close()
    return config


def check(text: str, folder: Path) -> tuple[Config | None, list[Problem]]:
    """The Config and no problem, or None and every problem in the order of the lines.

    Relative paths in the text are relative to `folder`, the file's own.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        line = int(said[2]) if said and said[2] else text.count("\n") + 1
        what = said[1] if said else str(error)
        return None, [Problem(line, "", f"this is not TOML: {what}", "see https://toml.io")]
    report = _Report(lines(text))
    config = _top(_Table(report, tables, ()), report, folder.resolve())
    if report.problems:
        return None, sorted(report.problems, key=lambda problem: problem.line)
    return config, []


def load(path: Path) -> Config:
    """The configuration in a file.

    Raises ConfigError, whose text has a line for every problem, when it cannot be read or is wrong.
    """
    config, problems = check(read(path), path.resolve().parent)
    if config is None:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def read(path: Path) -> str:
    """A configuration file's text. Raises ConfigError when it cannot be read."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", remedy="give an existing file: --config headwater.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8", remedy="save the file as UTF-8") from error
