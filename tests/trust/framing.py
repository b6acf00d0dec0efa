"""Bytes that a proxy and a server might cut into requests differently (row S3).

Each begins a VAIX request that would be good but for one thing. The test sends a whole good
request behind it: what a smuggler wants to be read as one of its own.
"""

from __future__ import annotations

from tests.trust.serving import ACME

START = (
    b"POST /api/tracker/events HTTP/1.1\r\nAuthorization: Bearer %b\r\nx-vaix-client-id: g1\r\n"
    % ACME.token.encode()
)
HOST = b"Host: a\r\n"
BODY = b'{"event_type":"trust:outer"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
END = b"\r\n"

#: What it is -> bytes that are 400 and the end.
BROKEN: dict[str, bytes] = {
    # the two lengths
    "CL.TE": START + HOST + LENGTH + CHUNKED + END + CHUNKS,
    "TE.CL": START + HOST + CHUNKED + LENGTH + END + CHUNKS,
    "CL.TE, both hidden in case": START
    + HOST
    + b"content-LENGTH: 4\r\ntransfer-ENCODING: CHUNKED\r\n"
    + END
    + CHUNKS,
    "CL 0 and TE": START + HOST + b"Content-Length: 0\r\n" + CHUNKED + END + CHUNKS,
    "two equal CL": START + HOST + LENGTH + LENGTH + END + BODY,
    "two CL": START + HOST + LENGTH + b"Content-Length: 3\r\n" + END + BODY,
    "a list as CL": START + HOST + b"Content-Length: 28, 28\r\n" + END + BODY,
    "a signed CL": START + HOST + b"Content-Length: +28\r\n" + END + BODY,
    "a negative CL": START + HOST + b"Content-Length: -1\r\n" + END + BODY,
    "a hexadecimal CL": START + HOST + b"Content-Length: 0x1c\r\n" + END + BODY,
    "a CL with an underscore": START + HOST + b"Content-Length: 2_8\r\n" + END + BODY,
    "a CL in other digits": START + HOST + "Content-Length: ٢٨\r\n".encode() + END + BODY,
    "an empty CL": START + HOST + b"Content-Length:\r\n" + END + BODY,
    "a CL with a space within": START + HOST + b"Content-Length: 2 8\r\n" + END + BODY,
    "a CL that wraps at 64 bits": START
    + HOST
    + b"Content-Length: 18446744073709551644\r\n"
    + END
    + BODY,
    # Transfer-Encoding in disguise
    "TE xchunked": START + HOST + b"Transfer-Encoding: xchunked\r\n" + END + CHUNKS,
    "TE identity": START + HOST + b"Transfer-Encoding: identity\r\n" + LENGTH + END + BODY,
    "TE identity alone": START + HOST + b"Transfer-Encoding: identity\r\n" + END + BODY,
    "TE chunked, identity": START
    + HOST
    + b"Transfer-Encoding: chunked, identity\r\n"
    + END
    + CHUNKS,
    "TE gzip, chunked": START + HOST + b"Transfer-Encoding: gzip, chunked\r\n" + END + CHUNKS,
    "TE chunked, chunked": START + HOST + b"Transfer-Encoding: chunked, chunked\r\n" + END + CHUNKS,
    "TE twice": START + HOST + CHUNKED + CHUNKED + END + CHUNKS,
    "TE twice, the second odd": START + HOST + CHUNKED + b"Transfer-Encoding: x\r\n" + END + CHUNKS,
    "TE twice, the first odd": START + HOST + b"Transfer-Encoding: x\r\n" + CHUNKED + END + CHUNKS,
    "TE quoted": START + HOST + b'Transfer-Encoding: "chunked"\r\n' + END + CHUNKS,
    "TE with a parameter": START + HOST + b"Transfer-Encoding: chunked;a=b\r\n" + END + CHUNKS,
    "TE behind a vertical tab": START + HOST + b"Transfer-Encoding: \x0bchunked\r\n" + END + CHUNKS,
    "TE behind a no-break space": START
    + HOST
    + b"Transfer-Encoding: \xa0chunked\r\n"
    + END
    + CHUNKS,
    "TE with a comma before": START + HOST + b"Transfer-Encoding: ,chunked\r\n" + END + CHUNKS,
    "TE empty, with a CL": START + HOST + b"Transfer-Encoding:\r\n" + LENGTH + END + BODY,
    "TE in HTTP/1.0": START.replace(b"1.1", b"1.0") + HOST + CHUNKED + END + CHUNKS,
    # line ends and folds
    "bare LF throughout": (START + HOST + LENGTH + END).replace(b"\r\n", b"\n") + BODY,
    "bare LF behind one field": START + b"Host: a\n" + LENGTH + END + BODY,
    "bare LF behind the request line": START.replace(b"1.1\r\n", b"1.1\n")
    + HOST
    + LENGTH
    + END
    + BODY,
    "bare LF as the blank line": START + HOST + LENGTH + b"\n" + BODY,
    "bare CR as a line end": START + b"Host: a\r" + LENGTH + END + BODY,
    "CR CR LF": START + b"Host: a\r\r\n" + LENGTH + END + BODY,
    "bare CR in a value": START + HOST + b"X: a\rb\r\n" + LENGTH + END + BODY,
    "a field hidden behind a bare LF": START
    + HOST
    + b"X: a\nTransfer-Encoding: chunked\r\n"
    + LENGTH
    + END
    + BODY,
    "a field hidden behind a bare CR": START
    + HOST
    + b"X: a\rTransfer-Encoding: chunked\r\n"
    + LENGTH
    + END
    + BODY,
    "NUL in a value": START + HOST + b"X: a\0b\r\n" + LENGTH + END + BODY,
    "NUL in a name": START + HOST + b"X\0: a\r\n" + LENGTH + END + BODY,
    "obs-fold with a space": START + HOST + b"X: a\r\n b\r\n" + LENGTH + END + BODY,
    "obs-fold with a tab": START + HOST + b"X: a\r\n\tb\r\n" + LENGTH + END + BODY,
    "obs-fold of TE": START + HOST + b"Transfer-Encoding:\r\n chunked\r\n" + END + CHUNKS,
    "obs-fold of CL": START + HOST + b"Content-Length:\r\n 28\r\n" + END + BODY,
    "obs-fold as the first field": b"POST /api/tracker/events HTTP/1.1\r\n Host: a\r\n" + END,
    # names
    "a space before the colon of CL": START + HOST + b"Content-Length : 28\r\n" + END + BODY,
    "a space before the colon of TE": START
    + HOST
    + b"Transfer-Encoding : chunked\r\n"
    + END
    + CHUNKS,
    "a tab before the colon": START + HOST + b"Transfer-Encoding\t: chunked\r\n" + END + CHUNKS,
    "a name in brackets": START + HOST + b"(X): a\r\n" + LENGTH + END + BODY,
    "a name above ASCII": START + HOST + b"X\xff: a\r\n" + LENGTH + END + BODY,
    "an empty name": START + HOST + b": a\r\n" + LENGTH + END + BODY,
    "no colon": START + HOST + b"X\r\n" + LENGTH + END + BODY,
    # who is asked
    "no Host": START + LENGTH + END + BODY,
    "two Host": START + HOST + HOST + LENGTH + END + BODY,
    "two Authorization": START + HOST + b"Authorization: Bearer x\r\n" + LENGTH + END + BODY,
    # the request line
    "a space in the target": b"POST /api/tracker/events x HTTP/1.1\r\n" + HOST + END,
    "a tab instead of a space": b"POST\t/api/tracker/events HTTP/1.1\r\n" + HOST + END,
    "a relative target": b"POST api/tracker/events HTTP/1.1\r\n" + HOST + END,
    "another scheme": b"GET ftp://a/healthz HTTP/1.1\r\n" + HOST + END,
    "HTTP/0.9": b"GET /healthz\r\n" + END,
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\n" + HOST + END,
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\n" + HOST + END,
    "HTTP/1.10": b"GET /healthz HTTP/1.10\r\n" + HOST + END,
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30),
    "a method of nobody": b"BREW /healthz HTTP/1.1\r\n" + HOST + END,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    # chunks
    "a chunk size in C": START + HOST + CHUNKED + END + b"0x1c\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk size of nothing": START + HOST + CHUNKED + END + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a negative chunk size": START + HOST + CHUNKED + END + b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk size that wraps": START
    + HOST
    + CHUNKED
    + END
    + b"1000000000000001c\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "a space before a chunk size": START
    + HOST
    + CHUNKED
    + END
    + b" 1c\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "a chunk longer than it says": START
    + HOST
    + CHUNKED
    + END
    + b"2\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "bare LF behind a chunk size": START + HOST + CHUNKED + END + b"1c\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF behind a chunk": START + HOST + CHUNKED + END + b"1c\r\n" + BODY + b"\n0\r\n\r\n",
    "bare LF in a chunk extension": START
    + HOST
    + CHUNKED
    + END
    + b"1c;a\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "bare LF behind the last chunk": START + HOST + CHUNKED + END + b"1c\r\n" + BODY + b"\r\n0\n\n",
    "a folded trailer": START + HOST + CHUNKED + END + CHUNKS[:-2] + b"X: a\r\n b\r\n\r\n",
    "a trailer with a space before its colon": START
    + HOST
    + CHUNKED
    + END
    + CHUNKS[:-2]
    + b"X : a\r\n\r\n",
    "a trailer that names a length": START
    + HOST
    + CHUNKED
    + END
    + CHUNKS[:-2]
    + b"Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\n",
}

#: What may look odd and means one thing only: one request each, and the next one is read.
SOUND: dict[str, bytes] = {
    "a CL with leading zeros": START + HOST + b"Content-Length: 00028\r\n" + END + BODY,
    "a CL with white space around it": START + HOST + b"Content-Length: \t28 \r\n" + END + BODY,
    "chunked in capitals": START + HOST + b"Transfer-Encoding: Chunked\r\n" + END + CHUNKS,
    "a chunk size in capitals": START + HOST + CHUNKED + END + CHUNKS.replace(b"1c", b"1C"),
    "a chunk size with leading zeros": START + HOST + CHUNKED + END + b"000" + CHUNKS,
    "a quoted chunk extension": START
    + HOST
    + CHUNKED
    + END
    + CHUNKS.replace(b"1c", b'1c;a="b;\\"c"'),
    "a line end before the request line": b"\r\n" + START + HOST + LENGTH + END + BODY,
    "a field named as if": START + HOST + b"Content-Length-X: 3\r\n" + LENGTH + END + BODY,
}
