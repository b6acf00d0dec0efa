"""S9: of a token only its hash is at rest; none is in what is logged, measured, kept or answered;
one that was taken away is refused within five seconds of the reload.

Each kind of secret is used as its owner uses it, and as somebody mistaken does. Then every file
below the data folder, a backup of it, every row of every table of the store, all that the server
has said, and all answers are searched for the texts.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from headwater.accept import accounts, iam
from headwater.view import access
from tests.served import HEADWATER, Served
from tests.test_app import send
from tests.trust.serving import ask, digest, request

RELOAD_SECONDS_MAX = 5.0
GOOD = "vaix-opaque-Zk3q9Lr7Tn5w"
GONE = "vaix-revoked-Hd8s2Vb6Xy1c"
WRONG = "vaix-unknown-Pq4m7Jt0Ka9z"
READER = "console-reader-Ew6n3Ug8Sf2j"
READER_WRONG = "console-wrong-Cx5d1Ro9Bi7h"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
#: Every table of the store, as text; for a process of its own.
_ROWS = """
import sys
from pathlib import Path
from headwater.store import session
data = Path(sys.argv[1])
writing = session.Writing(session.Connector(f"chdb://{data / 'store'}", data / "tmp"))
tables = writing.rows(
    "SELECT database, name FROM system.tables WHERE database LIKE 'headwater%' "
    "AND engine NOT IN ('Null', 'MaterializedView', 'Dictionary', 'View')"
)
for database, name in tables:
    with writing._using() as client:
        found = client.raw_query(f"SELECT * FROM {database}.{name}", fmt="JSONEachRow")
        sys.stdout.buffer.write(f"{database}.{name}\\n".encode() + found)
writing.close()
"""


def vaix(*, token: str = GOOD, kind: str = "vaix", good: bool = True) -> bytes:
    body = b'{"user_id":"u","event_type":"trust:token","data":{}}' if good else b"{"
    return request(
        "POST",
        "/api/tracker/events",
        f"Authorization: Bearer {token}",
        f"x-vaix-authentication-method: {kind}",
        "x-vaix-client-id: g1",
        body=body,
    )


class Used(NamedTuple):
    """A server that has ended; every secret that was used by name, and all that was answered."""

    served: Served
    secrets: dict[str, str]
    answers: list[bytes]
    printed: str


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Used:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "jwks.json").write_bytes(msgspec.json.encode(KeySet([KEY]).as_dict(private=False)))
    claims = {"iss": "https://idp.test/", "aud": "api.test", "azp": "shop", "sub": "someone"}
    until = {"exp": int(time.time()) + 3_600}
    header = {"alg": "RS256", "kid": "one"}
    signed = jwt.encode(header, {**claims, **until}, KEY, algorithms=["RS256"])
    expired = jwt.encode(header, {**claims, "exp": 1}, KEY, algorithms=["RS256"])
    none = {"alg": "HS256", "kid": "one"}
    forged = jwt.encode(none, {**claims, **until}, OctKey.generate_key(256), algorithms=["HS256"])
    accounts_table = f"""
[accounts.acme.vaix]
tokens = ["{digest(GOOD)}", "{digest(GONE)}"]
[accounts.acme.vaix.iam]
keys = "{folder / "jwks.json"}"
audience = "api.test"
issuer = "https://idp.test/"
clients = ["shop"]
"""
    tables = f"""
[log]
level = "debug"
[console.tokens.reader]
hash = "{digest(READER)}"
"""
    served = Served(folder, accounts_table, tables=tables)
    answers: list[bytes] = []
    with served:
        port = served.collect_port

        def collect(data: bytes, status: int) -> None:
            answer = ask(port, data)
            assert answer.status == status, answer
            answers.append(repr(answer).encode())

        for kind, token in (("vaix", GOOD), ("vaix", GONE), ("iam", signed)):
            collect(vaix(token=token, kind=kind), 204)
            collect(vaix(token=token, kind=kind, good=False), 400)  # kept as rejected
        for kind, token in (
            *(("vaix", one) for one in (WRONG, signed, READER)),
            *(("iam", one) for one in (expired, forged, GOOD)),
        ):
            collect(vaix(token=token, kind=kind), 401)
        collect(vaix(kind="basic"), 400)
        collect(vaix().replace(b"Bearer", b"Basic"), 401)
        body = b'{"user_id":"u","event_type":"trust:token","data":{}}'
        inflated = f"Authorization: Bearer {GOOD}", "x-vaix-client-id: g1", "Content-Encoding: gzip"
        collect(request("POST", "/api/tracker/events", *inflated, body=body), 400)

        own = served.token()
        for token, status in ((own, 200), (READER, 200), (READER_WRONG, 401), (GOOD, 401)):
            asked = msgspec.json.encode({"sql": "SELECT * FROM rejected"})
            bearer = f"Bearer {token}"
            found, said = send(served.console, "POST", "/api/query", asked, authorization=bearer)
            assert found == status, said
            answers.append(said)
            send(served.console, "POST", "/api/query", b'{"sql":"nonsense"}', authorization=bearer)
            found, said = send(served.console, "GET", f"/?token={quote(token)}")
            answers.append(said)
        for path in ("/metrics", "/readyz"):
            answers.append(send(served.console, "GET", path)[1])
        served.wait_loaded()
        for arguments in (("query", "SELECT * FROM rejected"), ("replay", "--since", "1d")):
            answers.append(served.run(*arguments).encode())
        served.run("backup", str(folder / "backup"))
    secrets = {
        "opaque": GOOD,
        "revoked": GONE,
        "unknown": WRONG,
        "reader": READER,
        "not a reader": READER_WRONG,
        "JWT": signed,
        "expired JWT": expired,
        "forged JWT": forged,
        "console": own,
    }
    return Used(served, secrets, answers, served.log.read_text())


def forms(secret: str) -> list[bytes]:
    """How a text may be written down; of a JWT also its signature, which is what is secret."""
    texts = [secret, secret.rpartition(".")[2]] if secret.count(".") == 2 else [secret]
    return [one.encode() for text in texts for one in (text, quote(text, safe=""), text[::-1])]


def where(used: Used, content: bytes) -> list[str]:
    """The secrets that a text holds."""
    return [
        name
        for name, secret in used.secrets.items()
        if any(one in content for one in forms(secret))
    ]


def test_no_file_holds_one_but_the_consoles_own(used: Used) -> None:
    found = {}
    folders = (used.served.data, used.served.folder / "backup")
    searched = 0
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                searched += 1
                if names := where(used, path.read_bytes()):
                    found[path] = names
    assert searched > 50
    assert found == {used.served.data / "console-token": ["console"]}
    assert (used.served.data / "console-token").stat().st_mode & 0o077 == 0


def test_no_row_holds_one(used: Used) -> None:
    """What lies compressed in the store's files, as text."""
    python = str(HEADWATER.with_name("python"))
    command = [python, "-c", _ROWS, str(used.served.data)]
    said = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert said.count(b"trust:token") >= 3, "the events are there"
    assert b"Bearer" not in said
    assert said.count(b'"reason"') >= 3, "and what was rejected"
    assert where(used, said) == []


def test_nothing_that_was_said_holds_one(used: Used) -> None:
    assert where(used, used.printed.encode()) == []
    for answer in used.answers:
        assert where(used, answer) == [], answer
    assert "DEBUG" in used.printed


def test_the_search_finds_what_it_looks_for(used: Used, tmp_path: Path) -> None:
    """The control: one copy of each, and it is found."""
    for name, secret in used.secrets.items():
        assert where(used, b"x" + secret.encode() + b"x") == [name]
    copy = tmp_path / "copy"
    shutil.copytree(used.served.data / "journal", copy)
    (copy / "note").write_text(f"bearer {GOOD}")
    held = [
        path.name for path in copy.rglob("*") if path.is_file() and where(used, path.read_bytes())
    ]
    assert held == ["note"]


def test_only_the_hash_is_in_the_configuration(used: Used) -> None:
    assert where(used, used.served.config.read_bytes()) == []


@pytest.mark.parametrize("module", [accounts, iam, access], ids=lambda one: str(one.__name__))
def test_no_secret_is_compared_byte_by_byte(module: object) -> None:
    """Looked up by its digest, or compared by `hmac.compare_digest`: nothing in these modules says
    ``==`` or ``in`` of a token, a secret or a signature itself."""
    assert inspect.ismodule(module)
    compared = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        kinds = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], kinds):
            for side in (node.left, *node.comparators):
                name = ast.unparse(side)
                if re.fullmatch(r"(self\.)?_?(token|text|presented|secret|signature|digest)", name):
                    compared.append(ast.unparse(node))
    assert compared == []


def test_a_revoked_token_is_refused_within_seconds(tmp_path: Path) -> None:
    """From SIGHUP to the last 204, by two workers."""
    both = f'[accounts.acme.vaix]\ntokens = ["{digest(GOOD)}", "{digest(GONE)}"]\n'
    with Served(tmp_path, both, workers=2) as served:
        port = served.collect_port
        assert ask(port, vaix(token=GONE)).status == 204
        served.config.write_text(served.config.read_text().replace(f', "{digest(GONE)}"', ""))
        began = time.monotonic()
        served.reload()
        last = began
        while time.monotonic() - began < RELOAD_SECONDS_MAX:
            if ask(port, vaix(token=GONE)).status == 204:
                last = time.monotonic()
            if time.monotonic() - last > 1.0:
                break
        print(f"the last 204 came {1e3 * (last - began):.0f} ms after SIGHUP")
        assert last - began < RELOAD_SECONDS_MAX - 1.0
        assert {ask(port, vaix(token=GONE)).status for _ in range(50)} == {401}
        assert ask(port, vaix(token=GOOD)).status == 204
