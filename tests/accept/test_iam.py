"""JWTs as bearer tokens, with real keys."""

from __future__ import annotations

import base64
import hmac
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from headwater import config
from headwater.accept.accounts import Accounts
from headwater.accept.iam import Verifier
from tests.accept.harness import EVENT, client, on_loop, post, site

NOW = 1_795_226_263
RSA = RSAKey.generate_key(2048, {"kid": "one"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "one"})
NEXT_RSA = RSAKey.generate_key(2048, {"kid": "two"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
SECRET = "0123456789abcdef0123456789abcdef"
CLAIMS: dict[str, Any] = {
    "iss": "https://idp.test/",
    "aud": ["other", "api.test"],
    "exp": NOW + 600,
    "azp": "client-1",
    "sub": "someone",
}


class Turned:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = float(NOW)

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


def signed(
    key: RSAKey | ECKey | OctKey = RSA, alg: str = "RS256", kid: str | None = "one", **changed: Any
) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not ...}
    header = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
    return jwt.encode(header, claims, key, algorithms=[alg])


def jwks(*keys: RSAKey | ECKey) -> bytes:
    return msgspec.json.encode(KeySet(list(keys)).as_dict(private=False))


def settings(keys: str, **changed: Any) -> config.IamSettings:
    given: dict[str, Any] = {
        "keys": keys,
        "audience": "api.test",
        "issuer": "https://idp.test/",
        "clients": ("client-1",),
        "algorithms": ("RS256", "ES256"),
        **changed,
    }
    return config.IamSettings(**given)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(RSA, EC))
    return str(path)


def test_a_token_that_verifies_is_accepted(key_file: str) -> None:
    verifier = Verifier(settings(key_file), clock=Turned())
    assert verifier.accepts(signed())
    assert verifier.accepts(signed())  # from memory
    assert verifier.accepts(signed(EC, "ES256", "ec"))
    assert verifier.accepts(signed(aud="api.test"))
    assert verifier.accepts(signed(azp=..., client_id="client-1"))
    assert verifier.accepts(signed(azp=..., sub="client-1"))
    assert Verifier(settings(key_file, clients=()), clock=Turned()).accepts(signed(azp="anyone"))


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 61},
        {"exp": ...},
        {"exp": "soon"},
        {"exp": True},
        {"nbf": NOW + 61},
        {"nbf": "now"},
        {"aud": "api.test.evil"},
        {"aud": ["other"]},
        {"aud": ...},
        {"iss": "https://evil.test/"},
        {"iss": ...},
        {"azp": "client-2"},
        {"azp": ["client-1"]},
        {"key": OTHER_RSA},
        {"kid": "unknown"},
        {"alg": "RS512"},
    ],
)
def test_a_token_that_fails_one_check_is_not(key_file: str, changed: dict[str, Any]) -> None:
    assert not Verifier(settings(key_file), clock=Turned()).accepts(signed(**changed))


def test_leeway_is_a_minute(key_file: str) -> None:
    verifier = Verifier(settings(key_file), clock=Turned())
    assert verifier.accepts(signed(exp=NOW - 59))
    assert verifier.accepts(signed(nbf=NOW + 59))


def test_forged_and_broken_tokens_are_not(key_file: str) -> None:
    verifier = Verifier(settings(key_file), clock=Turned())
    head, body, signature = signed().split(".")
    none = "eyJhbGciOiJub25lIn0"
    signing = "eyJhbGciOiJIUzI1NiIsImtpZCI6Im9uZSJ9." + body  # HS256 with the public key's text
    mac = hmac.digest(RSA.as_pem(private=False), signing.encode(), "sha256")
    confused = signing + "." + base64.urlsafe_b64encode(mac).decode().rstrip("=")
    for token in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body[:-4]}AAAA.{signature}",
        confused,
        "",
        "...",
        "a.b.c",
        "\xff\xfe.\u0100.x",
        "x" * 100_000,
    ):
        assert not verifier.accepts(token), token[:40]


def test_none_is_never_an_algorithm_even_when_configured(key_file: str) -> None:
    verifier = Verifier(settings(key_file, algorithms=("none", "RS256")), clock=Turned())
    body = signed().split(".")[1]
    assert not verifier.accepts(f"eyJhbGciOiJub25lIn0.{body}.")
    assert verifier.accepts(signed())


def test_a_remembered_token_still_expires(key_file: str) -> None:
    clock = Turned()
    verifier = Verifier(settings(key_file), clock=clock)
    token = signed()
    assert verifier.accepts(token)
    clock.seconds += 659
    assert verifier.accepts(token)
    clock.seconds += 2
    assert not verifier.accepts(token)


def test_a_shared_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_TEST_SECRET", SECRET)
    given = settings("secret:HEADWATER_TEST_SECRET", algorithms=("HS256",))
    verifier = Verifier(given, clock=Turned())
    assert verifier.accepts(signed(OctKey.import_key(SECRET), "HS256"))
    assert verifier.accepts(signed(OctKey.import_key(SECRET), "HS256", kid=None))
    assert not verifier.accepts(signed(OctKey.import_key("f" * 32), "HS256"))
    monkeypatch.setenv("HEADWATER_TEST_SECRET", RSA.as_pem(private=False).decode())
    assert not Verifier(given, clock=Turned()).accepts(signed())
    monkeypatch.delenv("HEADWATER_TEST_SECRET")
    assert not Verifier(given, clock=Turned()).accepts(signed(OctKey.import_key(SECRET), "HS256"))


def test_keys_that_cannot_be_read_refuse_and_say_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (b"", b"[]", b'{"keys":1}', b'{"keys":[]}', b'{"keys":[{"kty":"RSA"}]}'):
        (tmp_path / "bad.json").write_bytes(content)
        caplog.clear()
        verifier = Verifier(settings(str(tmp_path / "bad.json")), clock=Turned())
        assert not verifier.accepts(signed())
        assert "bad.json" in caplog.text


@pytest.fixture
def key_server() -> Iterator[tuple[str, dict[str, Any]]]:
    """A JWKS document behind a real URL; what it answers, and how often it was asked."""
    state: dict[str, Any] = {"body": jwks(RSA), "asked": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["asked"] += 1
            self.send_response(200 if state["body"] else 500)
            self.end_headers()
            self.wfile.write(state["body"])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks.json", state
        server.shutdown()
        thread.join()


def settled(verifier: Verifier) -> None:
    for _ in range(500):
        fetching = verifier._fetching
        if fetching is not None and not fetching.is_alive():
            return
        time.sleep(0.01)
    raise TimeoutError


def test_keys_behind_a_url_are_fetched_apart_and_at_most_once_a_minute(
    key_server: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    url, state = key_server
    clock = Turned()
    verifier = Verifier(settings(url), clock=clock)
    assert verifier.ready  # nothing begun
    verifier.start()
    settled(verifier)
    assert verifier.ready
    assert verifier.accepts(signed())
    state["body"] = jwks(RSA, NEXT_RSA)  # the provider rotates
    for _ in range(5):
        assert not verifier.accepts(signed(NEXT_RSA, kid="two"))
    assert state["asked"] == 1
    clock.seconds += 61
    assert not verifier.accepts(signed(NEXT_RSA, kid="two"))
    settled(verifier)
    assert verifier.accepts(signed(NEXT_RSA, kid="two"))
    assert state["asked"] == 2
    state["body"] = b""
    clock.seconds += 61
    assert not verifier.accepts(signed(kid="three"))
    settled(verifier)
    assert verifier.accepts(signed())  # a failed fetch forgets nothing
    assert "no keys from" in caplog.text


@on_loop
async def test_a_jwt_opens_its_account_over_http(key_server: tuple[str, dict[str, Any]]) -> None:
    url, _ = key_server
    clock = Turned()
    acme = config.Account(name="acme", vaix=config.VaixAccount(iam=settings(url)))
    accounts = Accounts({"acme": acme}, public_host="", clock=clock)
    iam = "x-vaix-authentication-method: iam"
    async with site(accounts=accounts) as at, client(at.port) as c:
        settled(accounts._iam[0][0])
        assert at.collector.ready()
        assert (await c.ask(post("/api/tracker/events", EVENT, iam, token=signed()))).status == 204
        assert (await c.ask(post("/api/tracker/events", EVENT, token=signed()))).status == 401
        clock.seconds += 700  # the same head again, after its token's end
        assert (await c.ask(post("/api/tracker/events", EVENT, iam, token=signed()))).status == 401
        assert [kept.account for kept in at.journal.kept] == ["acme"]
