"""What can be configured, and the default of everything: one struct per table of the TOML file.

``headwater.config_reader.load`` makes a :class:`Config` of a file, checked as a whole, or says
everything that is wrong with it. docs/configuration.md says what each key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from headwater import limits

DIALECTS = ("vaix", "orbee", "nucleus", "vibetrace", "gamooga")
#: What becomes of a client's address.
IP_POLICIES = ("keep", "truncate", "drop")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
#: What a token of the console may do.
CONSOLE_SCOPES = ("read", "admin")
#: What an account may honour: Do-Not-Track and Global Privacy Control.
PRIVACY_SIGNALS = ("dnt", "gpc")


class Collect(msgspec.Struct, frozen=True, kw_only=True):
    """[collect]: the public port. `public_host` empty: Gamooga's clients are told the Host that
    they asked. `trusted_proxies` are CIDRs. `rate_limit_per_ip` is in events a second, 0 = none."""

    listen: str = "127.0.0.1:8080"
    workers: int = 1
    public_host: str = ""
    trusted_proxies: tuple[str, ...] = ()
    rate_limit_per_ip: int = 0


class Browser(msgspec.Struct, frozen=True, kw_only=True):
    """[browser]: the script for pages, on the public port. `script` is its path, "" for none."""

    script: str = "/headwater.js"


class ConsoleToken(msgspec.Struct, frozen=True, kw_only=True):
    """[console.tokens.NAME]. `hash` is ``sha256:`` and hex digits, `scope` one of CONSOLE_SCOPES;
    `accounts` None: all."""

    hash: str
    scope: str = "read"
    accounts: tuple[str, ...] | None = None


class Console(msgspec.Struct, frozen=True, kw_only=True):
    """[console]: the private port. `hosts` are names it is reached by, besides addresses; `tokens`
    are others than its own, by name."""

    listen: str = "127.0.0.1:8081"
    hosts: tuple[str, ...] = ()
    tokens: Mapping[str, ConsoleToken] = msgspec.field(default_factory=dict)


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[journal]. `max_bytes` over all workers; beyond it requests are answered 503."""

    url: str = "sqlite:"
    retain_days: int = 7
    max_bytes: int = limits.journal_bytes_max


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """[registry]."""

    url: str = "sqlite:"


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[store]."""

    url: str = "chdb:"


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[sessions]: of the dialects whose clients name none."""

    idle_minutes: int = 30


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[log]. `format` is one of LOG_FORMATS, `level` one of LOG_LEVELS."""

    format: str = "text"
    level: str = "info"


class EnrichSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[enrich]. `country_file` is a MaxMind database's absolute path, "" for none."""

    country_file: str = ""


class IamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME.vaix.iam]: JWTs as bearer tokens. `keys` is a JWKS file's path, an http(s)
    URL of one, or ``secret:NAME``, an environment variable that holds a shared secret. `clients`
    are the values of client_id, azp or sub that stand for this account."""

    keys: str
    audience: str
    issuer: str
    clients: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256",)


class VaixAccount(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME.vaix]. `groups` and `event_types` None: no allow-list."""

    tokens: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    event_types: tuple[str, ...] | None = None
    iam: IamSettings | None = None


class OrbeeAccount(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME.orbee]. `trackers` are ``aid/tid``, UUIDs in lower case."""

    trackers: tuple[str, ...]
    lenient: bool = False


class NucleusAccount(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME.nucleus]."""

    apps: tuple[str, ...]


class VibetraceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME.vibetrace]."""

    accounts: tuple[str, ...]


class GamoogaAccount(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME.gamooga]. `companies` are UUIDs in lower case."""

    companies: tuple[str, ...]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """[accounts.NAME]: one tenant. None: it does not speak that dialect. `ip` is one of
    IP_POLICIES, `privacy_signals` are some of PRIVACY_SIGNALS. `plan` is the tracking plan's
    absolute path, "" for none, `plan_text` what stood there when the configuration was read."""

    name: str
    shared_user_ids: tuple[str, ...] = ()
    ip: str = "keep"
    privacy_signals: tuple[str, ...] = ()
    plan: str = ""
    plan_text: str = ""
    vaix: VaixAccount | None = None
    orbee: OrbeeAccount | None = None
    nucleus: NucleusAccount | None = None
    vibetrace: VibetraceAccount | None = None
    gamooga: GamoogaAccount | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `data` is absolute."""

    data: Path
    collect: Collect = Collect()
    browser: Browser = Browser()
    console: Console = Console()
    journal: JournalSettings = JournalSettings()
    registry: RegistrySettings = RegistrySettings()
    store: StoreSettings = StoreSettings()
    enrich: EnrichSettings = EnrichSettings()
    sessions: SessionSettings = SessionSettings()
    log: LogSettings = LogSettings()
    accounts: Mapping[str, Account] = msgspec.field(default_factory=dict)


def split_address(listen: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPv6]:PORT`` as host and port. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host and not bracketed) or not port.isascii():
        raise ValueError(listen)
    number = int(port)
    if not 0 <= number <= 65_535:
        raise ValueError(listen)
    return host, number


def join_address(host: str, port: int) -> str:
    """The inverse of :func:`split_address`, as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def every_key() -> dict[str, object]:
    """Each key that a file may hold, by its full name, with its default; `NAME` stands for an
    account's name. msgspec.NODEFAULT: the key must be given where its table is."""
    keys: dict[str, object] = {"data": "headwater-data"}

    def add(prefix: str, struct: type[msgspec.Struct]) -> None:
        for field in msgspec.structs.fields(struct):
            keys[f"{prefix}.{field.name}"] = field.default

    for prefix, struct in (
        ("collect", Collect),
        ("browser", Browser),
        ("console", Console),
        ("journal", JournalSettings),
        ("registry", RegistrySettings),
        ("store", StoreSettings),
        ("enrich", EnrichSettings),
        ("sessions", SessionSettings),
        ("log", LogSettings),
    ):
        add(prefix, struct)
    del keys["console.tokens"]
    add("console.tokens.NAME", ConsoleToken)
    account = "accounts.NAME"
    keys[f"{account}.shared_user_ids"] = ()
    keys[f"{account}.ip"] = "keep"
    keys[f"{account}.privacy_signals"] = ()
    keys[f"{account}.plan"] = ""
    dialects: tuple[tuple[str, type[msgspec.Struct]], ...] = (
        ("vaix", VaixAccount),
        ("orbee", OrbeeAccount),
        ("nucleus", NucleusAccount),
        ("vibetrace", VibetraceAccount),
        ("gamooga", GamoogaAccount),
    )
    for dialect, account_struct in dialects:
        add(f"{account}.{dialect}", account_struct)
    del keys[f"{account}.vaix.iam"]
    add(f"{account}.vaix.iam", IamSettings)
    return keys
