"""The configuration: what a right file gives, and what each wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Config, every_key, join_address, split_address
from headwater.config_reader import Problem, check, load
from headwater.errors import ConfigError
from headwater.toml_lines import line_of, lines
from tests.resolve.country_file import write_countries

TOKEN = "sha256:" + "ab" * 32
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
ACCOUNT = '[accounts.acme.nucleus]\napps = ["app1"]\n'


def right(text: str, folder: Path = Path("/srv")) -> Config:
    config, problems = check(text, folder)
    assert config is not None, [str(problem) for problem in problems]
    return config


def wrong(text: str, folder: Path = Path("/srv")) -> list[Problem]:
    config, problems = check(text, folder)
    assert config is None
    return problems


def test_a_file_with_one_account_has_a_default_for_everything_else() -> None:
    config = right(ACCOUNT)
    assert config.data == Path("/srv/headwater-data")
    assert config.collect.listen == "127.0.0.1:8080"
    assert config.collect.workers == 1
    assert config.console.listen == "127.0.0.1:8081"
    assert (config.journal.url, config.journal.retain_days) == ("sqlite:", 7)
    assert (config.registry.url, config.store.url) == ("sqlite:", "chdb:")
    assert config.accounts["acme"].vaix is None


def test_the_file_of_the_design_is_understood_key_by_key() -> None:
    config = right(
        f"""
data = "elsewhere"
[collect]
listen = "0.0.0.0:80"
workers = 2
public_host = "collect.example.com"
trusted_proxies = ["10.0.0.0/8", "::1"]
rate_limit_per_ip = 100
[console]
listen = "[::1]:8081"
hosts = ["headwater.internal"]
[journal]
url = "sqlite:"
retain_days = 30
max_bytes = 1_000_000_000
[registry]
url = "sqlite:"
[store]
url = "chdb:"
[accounts.acme]
shared_user_ids = ["vaix", "nucleus", "gamooga"]
[accounts.acme.vaix]
tokens = ["{TOKEN.upper().replace("SHA", "sha")}"]
groups = ["group-a"]
event_types = ["clicks:event", "impressions:*"]
[accounts.acme.orbee]
trackers = ["1/1", "7B7F3C1E-0000-4000-8000-000000000001/1"]
lenient = true
[accounts.acme.nucleus]
apps = ["6387f260fae4a13be78fc664"]
[accounts.acme.vibetrace]
accounts = ["ACCT123"]
[accounts.acme.gamooga]
companies = ["{COMPANY.upper()}"]
"""
    )
    assert config.data == Path("/srv/elsewhere")
    assert config.collect.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert config.journal.max_bytes == 1_000_000_000
    acme = config.accounts["acme"]
    assert acme.shared_user_ids == ("vaix", "nucleus", "gamooga")
    assert acme.vaix is not None
    assert acme.vaix.tokens == (TOKEN,)
    assert acme.vaix.groups == ("group-a",)
    assert acme.orbee is not None
    assert acme.orbee.lenient
    assert acme.orbee.trackers == ("1/1", "7b7f3c1e-0000-4000-8000-000000000001/1")
    assert acme.gamooga is not None
    assert acme.gamooga.companies == (COMPANY,), "UUIDs are compared in lower case"


def test_a_country_file_is_opened_before_it_is_taken(tmp_path: Path) -> None:
    write_countries(tmp_path / "c.mmdb", {"203.0.113.0/24": "AT"})
    config = right(f'[enrich]\ncountry_file = "c.mmdb"\n{ACCOUNT}', tmp_path)
    assert config.enrich.country_file == str(tmp_path / "c.mmdb")
    (tmp_path / "c.mmdb").write_text("plain text")
    (problem,) = wrong(f'[enrich]\ncountry_file = "c.mmdb"\n{ACCOUNT}', tmp_path)
    assert (problem.line, problem.where) == (2, "enrich.country_file")
    assert "is no MaxMind database" in problem.what


def test_what_an_account_does_not_want_to_know_is_read() -> None:
    text = '[accounts.acme]\nip = "truncate"\nprivacy_signals = ["gpc", "dnt"]\n'
    acme = right(text + ACCOUNT).accounts["acme"]
    assert (acme.ip, acme.privacy_signals) == ("truncate", ("gpc", "dnt"))
    acme = right(ACCOUNT).accounts["acme"]
    assert (acme.ip, acme.privacy_signals) == ("keep", ())


def test_the_error_named_in_the_style_guide_reads_exactly_so() -> None:
    (problem,) = wrong('[accounts.acme.vaix]\ntokens = ["plain"]\n')
    assert str(problem) == (
        'line 2: accounts.acme.vaix.tokens[0]: expected "sha256:" and 64 hex digits'
        ' - run "headwater token"'
    )


@pytest.mark.parametrize(
    ("text", "line", "where", "what", "remedy"),
    [
        ("data = 3\n" + ACCOUNT, 1, "data", "expected a text, got a whole number", "quotes"),
        ("[collect]\nlisten = '127.0.0.1'\n", 2, "collect.listen", "HOST:PORT", "port 0"),
        ("[collect]\nlisten = ':8080'\n", 2, "collect.listen", "HOST:PORT", "0.0.0.0"),
        ("[collect]\nlisten = 'a:70000'\n", 2, "collect.listen", "HOST:PORT", "port 0"),
        ("[collect]\nworkers = 0\n", 2, "collect.workers", "from 1 to 64, got 0", "default"),
        ("[collect]\nworkers = true\n", 2, "collect.workers", "got true or false", "default"),
        (
            "[collect]\npublic_host = 'http://x/'\n",
            2,
            "collect.public_host",
            "bare host",
            "without scheme",
        ),
        (
            "[collect]\ntrusted_proxies = [\n  '10.0.0.0/8',\n  'proxy',\n]\n",
            4,
            "collect.trusted_proxies[1]",
            'expected a network, got "proxy"',
            "10.0.0.0/8",
        ),
        (
            "[console]\nlisten = '127.0.0.1:8080'\n",
            2,
            "console.listen",
            "collect.listen is 127.0.0.1:8080 too",
            "a port of its own",
        ),
        ("[journal]\nurl = 'kafka://a:9092'\n", 2, "journal.url", "not supported", '"sqlite:"'),
        ("[registry]\nurl = 'postgresql://a'\n", 2, "registry.url", "not supported", '"sqlite:"'),
        ("[store]\nurl = 'clickhouse://a'\n", 2, "store.url", "not supported", '"chdb:"'),
        ("[store]\nurl = 'mysql://a'\n", 2, "store.url", 'expected "chdb:"', "only engine"),
        ("[journal]\nretain_days = '7'\n", 2, "journal.retain_days", "got a text", "default"),
        ("[journal]\nmax_bytes = 1\n", 2, "journal.max_bytes", "from 67108864", "default"),
        ("[colect]\nworkers = 2\n", 1, "colect", "unknown key", 'did you mean "collect"?'),
        ("[collect]\nworker = 2\n", 2, "collect.worker", "unknown key", 'mean "workers"?'),
        ("[store]\nzzz = 2\n", 2, "store.zzz", "unknown key", "known here: url"),
        ("collect = 3\n", 1, "collect", "expected a table", "write [collect]"),
        ("[accounts.'a b'.nucleus]\napps = ['x']\n", 1, 'accounts."a b"', "name is", "rename"),
        ("[accounts.acme.segment]\nkeys = []\n", 1, "accounts.acme.segment", "unknown", "known"),
        (
            "[accounts.acme]\nshared_user_ids = ['vax']\n",
            2,
            "accounts.acme.shared_user_ids[0]",
            "is no dialect",
            'did you mean "vaix"?',
        ),
        (
            "[accounts.acme]\nip = 'hash'\n",
            2,
            "accounts.acme.ip",
            'expected "keep", "truncate" or "drop", got "hash"',
            "IPv4 /24 or IPv6 /48",
        ),
        ("[accounts.acme]\nip = true\n", 2, "accounts.acme.ip", "expected a text", "quotes"),
        (
            "[accounts.acme]\nprivacy_signals = ['dnt', 'p3p']\n",
            2,
            "accounts.acme.privacy_signals[1]",
            '"p3p" is no privacy signal',
            '"gpc" Global Privacy Control',
        ),
        (
            "[accounts.acme]\nprivacy_signals = 'dnt'\n",
            2,
            "accounts.acme.privacy_signals",
            "list of texts",
            'write privacy_signals = ["dnt", "gpc"]',
        ),
        (
            "[enrich]\ncountry_file = 'none.mmdb'\n",
            2,
            "enrich.country_file",
            '"/srv/none.mmdb" cannot be read: No such file',
            "GeoLite2-Country.mmdb",
        ),
        ("[enrich]\ncountry = 'x'\n", 2, "enrich.country", "unknown key", '"country_file"'),
        ("[accounts.acme.vaix]\ngroups = ['g']\n", 1, "accounts.acme.vaix", "nobody", "tokens"),
        (
            "[accounts.acme.vaix]\ntokens = 'x'\n",
            2,
            "accounts.acme.vaix.tokens",
            "list of texts",
            "write tokens = [",
        ),
        (
            "[accounts.acme.vaix]\ntokens = [7]\n",
            2,
            "accounts.acme.vaix.tokens[0]",
            "expected a text",
            "write tokens = [",
        ),
        (
            f"[accounts.acme.vaix]\ntokens = ['{TOKEN}']\nevent_types = ['clicks']\n",
            3,
            "accounts.acme.vaix.event_types[0]",
            'expected "verb:object"',
            "clicks:event",
        ),
        ("[accounts.acme.orbee]\n", 1, "accounts.acme.orbee", '"trackers" is missing', "add"),
        (
            "[accounts.acme.orbee]\ntrackers = ['1']\n",
            2,
            "accounts.acme.orbee.trackers[0]",
            "aid/tid",
            "/collect/{aid}/{tid}/event",
        ),
        (
            "[accounts.acme.orbee]\ntrackers = ['01/1']\n",
            2,
            "accounts.acme.orbee.trackers[0]",
            "a number or a UUID",
            "1/1",
        ),
        (
            "[accounts.acme.orbee]\ntrackers = ['1/1']\nlenient = 'yes'\n",
            3,
            "accounts.acme.orbee.lenient",
            "true or false",
            "false is the default",
        ),
        (
            "[accounts.acme.nucleus]\napps = ['a/b']\n",
            2,
            "accounts.acme.nucleus.apps[0]",
            "1 to 128 letters",
            "appId",
        ),
        (
            "[accounts.acme.vibetrace]\naccounts = ['a b']\n",
            2,
            "accounts.acme.vibetrace.accounts[0]",
            "one path segment",
            "ACCT123",
        ),
        (
            "[accounts.acme.gamooga]\ncompanies = ['C']\n",
            2,
            "accounts.acme.gamooga.companies[0]",
            'expected a UUID, got "C"',
            COMPANY,
        ),
        ("[collect\n", 1, "", "this is not TOML", "toml.io"),
        ("[collect]\nworkers = 2\nworkers = 3\n", 3, "", "this is not TOML", "toml.io"),
        ("", 1, "accounts", "there is no account", "[accounts.NAME]"),
    ],
)
def test_a_wrong_file_says_where_what_and_what_to_do(
    text: str, line: int, where: str, what: str, remedy: str
) -> None:
    needs_account = text and "accounts" not in text
    (problem,) = wrong(text + ("\n" + ACCOUNT if needs_account else ""))
    assert (problem.line, problem.where) == (line, where)
    assert what in problem.what
    assert remedy in problem.remedy


def test_all_problems_are_said_at_once_in_the_order_of_the_lines() -> None:
    problems = wrong(
        "[accounts.acme.gamooga]\ncompanies = ['C']\n"
        "[collect]\nworker = 1\nlisten = 'x'\n"
        "[journal]\nurl = 'kafka:'\n"
    )
    assert [problem.line for problem in problems] == [2, 4, 5, 7]


@pytest.mark.parametrize(
    ("dialect", "key", "value", "what"),
    [
        ("vaix", "tokens", TOKEN, "token"),
        ("orbee", "trackers", "1/1", "tracker"),
        ("nucleus", "apps", "app1", "app"),
        ("vibetrace", "accounts", "ACCT123", "Vibetrace account"),
        ("gamooga", "companies", COMPANY, "company"),
    ],
)
def test_a_key_that_two_accounts_claim_is_refused(
    dialect: str, key: str, value: str, what: str
) -> None:
    (problem,) = wrong(
        f"[accounts.one.{dialect}]\n{key} = ['{value}']\n"
        f"[accounts.two.{dialect}]\n{key} = ['{value}']\n"
    )
    assert problem.line == 4
    assert problem.what == (
        f"this {what} is already given at accounts.one.{dialect}.{key}[0] (line 2)"
    )


def test_a_company_is_the_same_in_capitals() -> None:
    (problem,) = wrong(
        f"[accounts.one.gamooga]\ncompanies = ['{COMPANY}']\n"
        f"[accounts.two.gamooga]\ncompanies = ['{COMPANY.upper()}']\n"
    )
    assert "already given" in problem.what


IAM = """[accounts.acme.vaix.iam]
keys = "{keys}"
audience = "api.vaix.ai"
issuer = "https://auth.example.com/"
clients = ["c1"]
{more}
"""


def test_iam_keys_may_be_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    config = right(IAM.format(keys="jwks.json", more=""), tmp_path)
    vaix = config.accounts["acme"].vaix
    assert vaix is not None
    assert vaix.iam is not None
    assert vaix.iam.keys == str(tmp_path / "jwks.json")
    assert vaix.iam.algorithms == ("RS256",)


def test_a_missing_key_file_is_found_before_the_start(tmp_path: Path) -> None:
    (problem,) = wrong(IAM.format(keys="gone.json", more=""), tmp_path)
    assert problem.where == "accounts.acme.vaix.iam.keys"
    assert "there is no file" in problem.what


def test_a_shared_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = wrong(IAM.format(keys="secret:HW_TEST_SECRET", more=""))
    assert 'environment variable "HW_TEST_SECRET" is not set' in problem.what
    monkeypatch.setenv("HW_TEST_SECRET", "s3cret")
    vaix = right(IAM.format(keys="secret:HW_TEST_SECRET", more="")).accounts["acme"].vaix
    assert vaix is not None
    assert vaix.iam is not None
    assert vaix.iam.algorithms == ("HS256",)


def test_a_public_key_is_never_taken_for_a_shared_secret() -> None:
    text = IAM.format(keys="https://auth.example.com/jwks", more='algorithms = ["HS256"]')
    (problem,) = wrong(text)
    assert "HS256 goes with a shared secret" in problem.what


def test_none_is_no_algorithm() -> None:
    text = IAM.format(keys="https://auth.example.com/jwks", more='algorithms = ["none"]')
    (problem,) = wrong(text)
    assert problem.what == '"none" is not supported'


def test_load_says_every_problem_with_the_files_name(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text("[collect]\nworkers = 0\nlistn = 'x'\n" + ACCOUNT)
    with pytest.raises(ConfigError) as caught:
        load(file)
    said = str(caught.value).splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"{file}: line 2: collect.workers: ")


def test_a_file_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes(b"data = '\xe9'")
    with pytest.raises(ConfigError, match="save the file as UTF-8"):
        load(tmp_path / "latin.toml")


def test_every_key_that_a_file_may_hold_is_listed_with_its_default() -> None:
    keys = every_key()
    assert keys["collect.workers"] == 1
    assert keys["journal.retain_days"] == 7
    assert "accounts.NAME.vaix.iam.issuer" in keys


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "[::1]:0", "example.com:443"])
def test_an_address_survives_being_split_and_joined(address: str) -> None:
    assert join_address(*split_address(address)) == address


def test_lines_are_found_through_strings_comments_and_nested_brackets() -> None:
    text = (
        'a = "# no comment = 1"  # a = comment\n'
        "[t.'x y']\n"
        'b = """\n[not.a.table]\nc = 1\n"""\n'
        "d = [ # one\n  [1, 2], # two\n  '],', # three\n]\n"
        "e.f = {g = 1}\n"
        "[[list]]\nh = 1\n[[list]]\nh = 2\n"
    )
    found = lines(text)
    assert found[("a",)] == 1
    assert found[("t", "x y", "b")] == 3
    assert ("not", "a", "table") not in found
    assert found[("t", "x y", "d", 0)] == 8
    assert found[("t", "x y", "d", 1)] == 9
    assert found[("t", "x y", "e", "f")] == 11
    assert found[("list", 1, "h")] == 15
    assert line_of(found, ("t", "x y", "e", "f", "g")) == 11


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    config, problems = check(text, Path("/srv"))
    assert (config is None) == bool(problems)


@given(st.text(alphabet="ab.[]={}'\"#,\n 1", max_size=60))
def test_no_text_that_looks_like_toml_makes_the_reader_fail(text: str) -> None:
    config, problems = check(text, Path("/srv"))
    assert (config is None) == bool(problems)
