"""S7: a callback is a name, or the answer is plain JSON; nobody chooses a script's first bytes."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import pytest

from tests.served import Served
from tests.trust.serving import ACME, UNKNOWN, Answer, ask, request

#: Names that a script tag may ask for.
GOOD = ("vt", "_", "$", "jQuery1124_1617", "window.vt.done", "a.b.c.d.e", "x" * 128)

#: Everything else: answered as plain JSON, and never echoed.
BAD = {
    "a script": "<script>alert(1)</script>",
    "markup": '"><img src=x onerror=alert(1)>',
    "a call": "alert(1)//",
    "a call of a name": "alert(document.domain);vt",
    "an assignment": "a=1;b",
    "brackets": "a[b]",
    "a string": "'a'",
    "a template": "`a`",
    "Rosetta Flash": "CWSMIKI0hCD0Up0IZUnnnnnnnnnnnnnnnnnnnUU5nnnnnn3Snn7iiudIbEAt333swW0ssG03"
    "sDDtDDDt0333333Gt333swwv3wwwFPOHtoHHvwHHFhH3D0Up0IZUnnnnnnnnnnnnnnnnnnn",
    "129 letters": "x" * 129,
    "60,000 letters": "x" * 60_000,
    "60,000 dots": "a." * 30_000,
    "six names": "a.b.c.d.e.f",
    "a digit first": "1a",
    "two dots": "a..b",
    "a dot first": ".a",
    "a dot last": "a.",
    "a line end": "vt\n",
    "CR LF": "vt\r\nX-Injected: 1",
    "two line ends": "vt\r\n\r\n<script>alert(1)</script>",
    "a NUL": "vt\0",
    "a space": "vt vt",
    "a tab": "vt\t",
    "a comment": "vt/**/",
    "a comment's end": "*/alert(1)/*",
    "an HTML comment": "<!--",
    "letters of other scripts": "ѵt",
    "full-width letters": "ｖｔ",
    "U+2028": "vt\u2028",
    "U+2029": "vt\u2029alert(1)",
    "a right-to-left override": "vt\u202e",
    "a byte order mark": "\ufeffvt",
    "an escape": "\\u0076t",
    "empty": "",
    "white space": " ",
}
#: What may stand in the data beside it; none of it is echoed.
DATA = {
    "good": "[]",
    "U+2028 in a value": '[{"type":"a","x":"\u2028\u2029</script>"}]',
    "a script as data": "<script>alert(1)</script>",
    "bad JSON with U+2028": '{"\u2028</script>',
    "not JSON": "vt",
}


def target(callback: str, data: str, shop: str = ACME.shop) -> str:
    return f"/event/{shop}/login?callback={quote(callback, safe='')}&data={quote(data, safe='')}"


def judge_always(answer: Answer) -> None:
    """What holds of every answer."""
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "x-injected" not in answer.headers
    for never in (b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"</", b"<script", b"onerror"):
        assert never not in answer.body


def judge_plain(answer: Answer, status: int) -> None:
    judge_always(answer)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert isinstance(msgspec.json.decode(answer.body), dict)


def judge_script(answer: Answer, callback: str) -> None:
    judge_always(answer)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/javascript; charset=utf-8"
    start, end = f"/**/{callback}(".encode(), b");"
    assert answer.body.startswith(start)
    assert answer.body.endswith(end)
    assert isinstance(msgspec.json.decode(answer.body[len(start) : -len(end)]), dict)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("callback", GOOD)
def test_a_name_is_called(callback: str, data: str, port: int) -> None:
    judge_script(ask(port, request("GET", target(callback, DATA[data]))), callback)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_plain_json(case: str, data: str, port: int) -> None:
    good = data in ("good", "U+2028 in a value")
    answer = ask(port, request("GET", target(BAD[case], DATA[data])))
    judge_plain(answer, 200 if good else 400)


@pytest.mark.parametrize("case", BAD)
def test_a_refusal_echoes_no_callback_either(case: str, port: int) -> None:
    judge_plain(ask(port, request("GET", target(BAD[case], "[]", UNKNOWN.shop))), 404)


def test_a_refusal_reaches_a_script_tag(port: int) -> None:
    judge_script(ask(port, request("GET", target("vt", "[]", UNKNOWN.shop))), "vt")


@pytest.mark.parametrize("case", BAD)
def test_a_form_and_a_json_body_are_no_way_around_it(case: str, served: Served) -> None:
    callback = BAD[case]
    form = f"data=%5B%5D&callback={quote(callback, safe='')}".encode()
    as_json = msgspec.json.encode({"data": [], "callback": callback})
    for body in (form, as_json):
        answer = ask(served.collect_port, request("POST", f"/event/{ACME.shop}/login", body=body))
        judge_plain(answer, 200)


def test_a_name_of_a_megabyte_is_refused_as_a_target_and_as_a_body(port: int) -> None:
    name = "x" * 1_048_576
    answer = ask(port, request("GET", target(name, "[]")))
    assert answer.status == 414
    assert b"xxxx" not in answer.body
    body = f"data=%5B%5D&callback={name}".encode()
    answer = ask(port, request("POST", f"/event/{ACME.shop}/login", body=body))
    judge_plain(answer, 413)


def test_the_first_of_several_callbacks_counts(port: int) -> None:
    twice = target("vt", "[]") + "&callback=" + quote("<script>")
    judge_script(ask(port, request("GET", twice)), "vt")
    turned = f"/event/{ACME.shop}/login?callback={quote('<script>')}&callback=vt&data=%5B%5D"
    judge_plain(ask(port, request("GET", turned)), 200)


def test_other_dialects_know_no_callback(port: int) -> None:
    for aim in (
        f"/evwid/?c={ACME.company}&u=u1&e=x&callback=vt",
        f"/newnaconf/{ACME.company}?callback=vt",
        f"/app/{ACME.app}/track?callback=vt",
    ):
        answer = ask(port, request("GET", aim))
        assert answer.headers["content-type"] == "application/json"
        assert b"vt(" not in answer.body
