"""JSON that has broken parsers, stores and terminals before (row S6).

`VALUES` stand where a client may put any value, within an event that is good otherwise. `DOCUMENTS`
are whole bodies made of a good one. Each is a row, or the dialect's error.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.trust.serving import FULL

#: Ten times fewer in the small size; the full one is 10^6 keys, and 8 MB is VAIX's bound.
MANY = 1_000_000 if FULL else 100_000


def nested(opening: bytes, closing: bytes, depth: int, inner: bytes = b"1") -> bytes:
    return opening * depth + inner + closing * depth


def keys(count: int) -> bytes:
    return b"{%b}" % b",".join(b'"%x":1' % number for number in range(count))


VALUES: dict[str, bytes] = {
    # depth
    "99 lists": nested(b"[", b"]", 99),
    "101 lists": nested(b"[", b"]", 101),
    "390 lists": nested(b"[", b"]", 390),
    "401 lists": nested(b"[", b"]", 401),
    "100,000 lists": nested(b"[", b"]", 100_000),
    "100,000 objects": nested(b'{"a":', b"}", 100_000),
    "100,000 lists that do not end": b"[" * 100_000,
    "390 objects": nested(b'{"a":', b"}", 390),
    "brackets in a string": b'"' + b"[{" * 5_000 + b'"',
    "brackets behind quotes": b'"\\"' + b"[" * 5_000 + b'"',
    # width
    "10 to the 6 keys": keys(MANY),
    "1,001 keys": keys(1_001),
    "10,000 keys of one depth each": b"{%b}"
    % b",".join(b'"a%d":{"b":1}' % n for n in range(10_000)),
    "a list of 100,000": b"[%b]" % b",".join([b"1"] * 100_000),
    "a key of 200,000 letters": b'{"%b":1}' % (b"k" * 200_000),
    "a text of 200,000 letters": b'"%b"' % (b"t" * 200_000),
    "a text of control characters": b'"%b"' % (b"\\u0001" * 10_000),
    # numbers
    "10 to the 5 digits": b"1" * 100_000,
    "4,300 digits": b"1" * 4_300,
    "4,301 digits": b"1" * 4_301,
    "10 to the 5 digits behind the point": b"0." + b"1" * 100_000,
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "1e308": b"1e308",
    "1e-400": b"1e-400",
    "1e999999999999": b"1e999999999999",
    "an exponent of 10 to the 5 digits": b"1e" + b"1" * 100_000,
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "2^53 + 1": b"9007199254740993",
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "-2^63 - 1": b"-9223372036854775809",
    "-0": b"-0",
    "-0.0": b"-0.0",
    "a leading zero": b"01",
    "a plus": b"+1",
    "hexadecimal": b"0x1",
    "a point first": b".5",
    "a point last": b"1.",
    "mixed numbers": b"[1,1.5,18446744073709551616,-1,1e300]",
    "mixed types": b'[1,"a",null,{"b":[]},[[]],true]',
    # keys
    "a key twice": b'{"a":1,"a":2}',
    "a key twice, of two types": b'{"a":{"b":1},"a":"x"}',
    "a key twice by an escape": b'{"a":1,"\\u0061":2}',
    "a path and its point": b'{"a":{"b":1},"a.b":2}',
    "a path and its parent": b'{"a":1,"a.b":2,"a.b.c":3}',
    "an empty key": b'{"":1,"a":{"":{"":2}}}',
    "keys of points": b'{".":1,"..":2,"a.":3,".a":4}',
    "a key with a NUL": b'{"a\\u0000b":1}',
    "a key with a quote and a backslash": b'{"a\\"b\\\\":1,"`":2,"\'":3,"{}":4}',
    "__proto__": b'{"__proto__":{"a":1},"constructor":2}',
    "keys like columns": b'{"event_id":1,"account":"other","dialect":"x","received_at":0}',
    "keys that differ in case": b'{"a":1,"A":2}',
    "two forms of one letter": '{"\u00e9":1,"e\u0301":2}'.encode(),
    # text
    "a NUL by an escape": b'"a\\u0000b"',
    "a NUL as it is": b'"a\0b"',
    "a line end as it is": b'"a\nb"',
    "DEL": b'"\x7f"',
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udc00"',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "a high surrogate and a letter": b'"\\ud83dx"',
    "a surrogate in a key": b'{"\\ud800":1}',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "a pair": b'"\\ud83d\\ude00"',
    "a non-character": b'"\\uffff\\ufdd0"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
    "an overlong slash": b'"\xc0\xaf"',
    "an overlong NUL": b'"\xc0\x80"',
    "half a letter": b'"\xc3"',
    "a stray continuation": b'"a\x80b"',
    "latin-1": b'"caf\xe9"',
    "bad UTF-8 in a key": b'{"\xff":1}',
    "bad UTF-8 deep below": b'{"a":[{"b":["\xff"]}]}',
    "U+FEFF within": '"a\ufeffb"'.encode(),
    "U+FFFD": '"\ufffd"'.encode(),
    "U+2028": '"\u2028\u2029"'.encode(),
    "right to left": '"\u202egpj.exe"'.encode(),
    "a bad escape": b'"\\x41"',
    "half an escape": b'"\\u00"',
    "markup": b'"<script>alert(1)</script>"',
    "SQL": b'"\'); DROP TABLE events; --"',
    "a formula": b'"=HYPERLINK(\\"http://a.test\\")"',
    "an escape sequence": b'"\\u001b]0;owned\\u0007"',
    "a format string": b'"{0.__class__} %s %n ${jndi:ldap://a.test}"',
    # syntax
    "nothing": b"",
    "a comma last": b"[1,]",
    "a comment": b"/*a*/1",
    "single quotes": b"'a'",
    "a bare word": b"abc",
    "an unclosed text": b'"abc',
}

DOCUMENTS: dict[str, Callable[[bytes], bytes]] = {
    "a byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "two byte order marks": lambda body: b"\xef\xbb\xbf" * 2 + body,
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "UTF-16 without its mark": lambda body: body.decode().encode("utf-16-le"),
    "UTF-32": lambda body: body.decode().encode("utf-32"),
    "a NUL before": lambda body: b"\0" + body,
    "a NUL behind": lambda body: body + b"\0",
    "white space around": lambda body: b" \t\r\n" + body + b" \t\r\n",
    "a no-break space before": lambda body: b"\xc2\xa0" + body,
    "bad UTF-8 before": lambda body: b"\xff" + body,
    "bad UTF-8 behind": lambda body: body + b"\xff",
    "twice": lambda body: body + body,
    "a line each": lambda body: body + b"\n" + body,
    "cut in the middle": lambda body: body[: len(body) // 2],
    "without its last byte": lambda body: body[:-1],
    "as a text": lambda body: b'"' + body.replace(b'"', b'\\"') + b'"',
    "in a list": lambda body: b"[" + body + b"]",
    "in 390 lists": lambda body: nested(b"[", b"]", 390, body),
    "null": lambda body: b"null",
    "true": lambda body: b"true",
    "a number": lambda body: b"1",
    "a text": lambda body: b'"a"',
    "an empty list": lambda body: b"[]",
    "an empty object": lambda body: b"{}",
    "nothing": lambda body: b"",
    "white space": lambda body: b"   ",
    "one bracket": lambda body: b"{",
    "256 bytes of all kinds": lambda body: bytes(range(256)),
    "NULs": lambda body: bytes(1_000),
}

#: Bytes that are no UTF-8, or no text, for queries, fields and identifiers.
ODD_BYTES: dict[str, bytes] = {
    "latin-1": b"caf\xe9",
    "half a letter": b"a\xc3",
    "an overlong NUL": b"\xc0\x80",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "all above ASCII": bytes(range(128, 256)),
    "C1 controls": b"\xc2\x9b31m",
    "a byte order mark": b"\xef\xbb\xbfa",
    "DEL": b"a\x7fb",
}
#: What only an escape can carry.
ODD_ESCAPED: dict[str, bytes] = {
    **ODD_BYTES,
    "NUL": b"a\0b",
    "CR LF": b"a\r\nb",
    "an escape sequence": b"\x1b]0;owned\x07",
    "a half escape": b"%",
    "U+2028": "\u2028".encode(),
    "a quote and a backslash": b"'\"\\`",
}
