"""The script as a file: its size, its route, its caching, and how it is configured."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from headwater.accept.browser_script import SOURCE, BrowserScript, load, takes_gzip
from headwater.accept.intake import Settings
from headwater.config_reader import check
from tests.accept.harness import Client, Reply, client, on_loop, site

ACCOUNT = '[accounts.acme.vibetrace]\naccounts = ["ACCT123"]\n'
#: What the page of issue and docs promise, as served.
ZIPPED_BYTES_MAX = 4_096


def script(path: str = "/headwater.js") -> BrowserScript:
    loaded = load(path)
    assert loaded is not None
    return loaded


async def ask(c: Client, path: str, *fields: str, method: str = "GET") -> Reply:
    lines = "".join(f"{field}\r\n" for field in fields)
    c.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    return await c.reply(head_only=method == "HEAD")


def test_it_is_less_than_4_kib_zipped_and_readable_as_source() -> None:
    assert len(script().zipped) < ZIPPED_BYTES_MAX
    assert gzip.decompress(script().zipped) == script().plain
    lines = SOURCE.read_text("utf-8").splitlines()
    assert max(map(len, lines)) <= 100


def test_what_is_served_is_the_source_without_comments_and_indentation() -> None:
    source = """/*
 * About; what it is.
 */
(() => {
  // why
  const a = "http://x/*"; // how far
  /* Two lines,
     the second of which is bare. */
  const b = a /* kept */
    * 2;
})();
"""
    served = BrowserScript("/x.js", source).plain
    assert served == b'(() => {\nconst a = "http://x/*";\nconst b = a /* kept */\n* 2;\n})();\n'


def test_the_configured_path_is_the_one_that_the_script_looks_for() -> None:
    assert b'"/headwater.js"' in script().plain
    assert b'"/a/b.js"' in script("/a/b.js").plain
    assert b"/headwater.js" not in script("/a/b.js").plain


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("", False),
        ("identity", False),
        ("br, deflate", False),
        ("gzip", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip ; q=0.000, *", False),
        ("*;q=0", False),
    ],
)
def test_it_is_zipped_where_the_client_takes_that(accepted: str, zipped: bool) -> None:
    assert takes_gzip(accepted) is zipped


@on_loop
async def test_the_route_answers_with_what_a_page_of_another_origin_needs() -> None:
    async with site(script=script()) as at, client(at.port) as c:
        plain = await ask(c, "/headwater.js")
        assert (plain.status, plain.body) == (200, script().plain)
        assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
        assert plain.headers["cache-control"] == "public, max-age=600"
        assert plain.headers["vary"] == "accept-encoding"
        assert plain.headers["x-content-type-options"] == "nosniff"
        assert plain.headers["cross-origin-resource-policy"] == "cross-origin"
        assert plain.headers["access-control-allow-origin"] == "*"
        assert "content-encoding" not in plain.headers
        zipped = await ask(c, "/headwater.js?v=2", "Accept-Encoding: gzip, br")
        assert (zipped.headers["content-encoding"], zipped.body) == ("gzip", script().zipped)
        assert zipped.headers["etag"] != plain.headers["etag"]
        head = await ask(c, "/headwater.js", "Accept-Encoding: gzip, br", method="HEAD")
        assert (head.status, head.headers) == (
            200,
            {**zipped.headers, "date": head.headers["date"]},
        )
        refused = await ask(c, "/headwater.js", "Content-Length: 0", method="POST")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (await ask(c, "/healthz")).body == b"ok"
        assert at.journal.kept == []


@on_loop
async def test_who_has_it_already_is_answered_304() -> None:
    async with site(script=script()) as at, client(at.port) as c:
        for encoding in ("identity", "gzip"):
            accept = f"Accept-Encoding: {encoding}"
            tag = (await ask(c, "/headwater.js", accept)).headers["etag"]
            for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
                reply = await ask(c, "/headwater.js", accept, f"If-None-Match: {known}")
                assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", tag)
                assert "content-length" not in reply.headers
            for other in ('"other"', tag.replace("-gzip", "") if encoding == "gzip" else '""'):
                reply = await ask(c, "/headwater.js", accept, f"If-None-Match: {other}")
                assert reply.status == 200


@on_loop
async def test_another_path_takes_its_place_and_none_switches_it_off() -> None:
    async with site(script=script("/healthz.js")) as at, client(at.port) as c:
        assert (await ask(c, "/healthz.js")).body == script("/healthz.js").plain
        assert (await ask(c, "/headwater.js")).status == 404
        assert (await ask(c, "/healthz")).body == b"ok"
    async with site(script=load("")) as at, client(at.port) as c:
        assert (await ask(c, "/headwater.js")).status == 404


@on_loop
async def test_a_page_may_read_how_long_it_has_to_wait() -> None:
    path = "/event/ACCT123?data=%5B%7B%22type%22%3A%22x%22%7D%5D"
    async with site(Settings(rate_limit_per_ip=1)) as at, client(at.port) as c:
        replies = [await ask(c, path) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[2].headers["access-control-expose-headers"] == "retry-after"
    assert "access-control-expose-headers" not in replies[0].headers


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("headwater.js", "expected an absolute path"),
        ("/", "expected an absolute path"),
        ("/a b.js", "expected an absolute path"),
        ("/../a.js", "expected an absolute path"),
        ("/a.js?x", "expected an absolute path"),
        ("https://elsewhere.example/a.js", "expected an absolute path"),
        ("/event/a.js", '"/event/a.js" is a route of vibetrace'),
        ("/collect/1/1/event", "is a route of orbee"),
        ("/healthz", "is a route of health"),
    ],
)
def test_a_path_that_cannot_be_is_refused_with_its_line(path: str, what: str) -> None:
    config, problems = check(f'[browser]\nscript = "{path}"\n{ACCOUNT}', Path("/srv"))
    assert config is None
    (problem,) = problems
    assert (problem.line, problem.where) == (2, "browser.script")
    assert what in problem.what
    assert '"" switches it off' in problem.remedy


@pytest.mark.parametrize("path", ["", "/headwater.js", "/a/b-1.min.js", "/event.js"])
def test_a_path_that_can_be_is_taken(path: str) -> None:
    config, problems = check(f'[browser]\nscript = "{path}"\n{ACCOUNT}', Path("/srv"))
    assert config is not None, problems
    assert config.browser.script == path
