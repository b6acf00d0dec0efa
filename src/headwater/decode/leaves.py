"""A request as its leaves: every single value in it, where it stands, and how to put another there.

Theory of operation. A request is a handful of *slots*, stretches of raw text that can be replaced
by themselves: a parameter of the path, a field of the query or of a form, a header, the body, the
state that the answer carried, the client's address. A slot may hold a *document*, JSON text in the
slot's own writing (percent-escapes in a query). A leaf is a whole slot, or one value of a document.
:meth:`Leaves.changed` puts another value in a leaf's place and builds the request anew, everything
else byte for byte as it was.

Where a document holds a list of events, its *items* are those, and a request can be built that
holds one of them alone: what a decoder makes of an item does not depend on its neighbours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote_from_bytes, unquote

import msgspec

from headwater import limits
from headwater.accept.request import Dialect, Request
from headwater.decode.form import as_characters
from headwater.decode.json_body import BadJson
from headwater.decode.json_scan import Token, indented, items_of, scan
from headwater.decode.percent import percent_decode

_BOM = b"\xef\xbb\xbf"
_ESCAPED = re.compile(rb"%[0-9a-fA-F]{2}|.", re.DOTALL)
#: Where a dialect's requests hold their list of events; the rest is one event a request.
_LISTS = {"nucleus": ("/data", ""), "vibetrace": ("", "/data")}
#: Said about the body, which is shown inflated already.
_NOT_READ = frozenset({"content-encoding"})
_TEXT_CHARACTERS_MAX = 200


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """One value. `part` is path, query, form, header, body, answer or connection; `name` that of
    the path's parameter, the field or the header; `pointer` (RFC 6901) its place in a document.
    `start` and `end` are bytes: of the target for path and query, of the header's value, of the
    body (inflated). `text` is the value as sent, cut. `item` is the event it stands in, None for
    what all share."""

    part: str
    name: str = ""
    pointer: str = ""
    start: int
    end: int
    text: str
    item: int | None = None

    @property
    def words(self) -> str:
        """Where it is, as one says it."""
        place = {
            "path": f"path segment {self.name}",
            "query": f"parameter {self.name}",
            "form": f"form field {self.name}",
            "header": f"header {self.name}",
            "body": "body",
            "answer": "the answer's visitor id",
            "connection": "the client's address",
        }[self.part]
        return f"{place} {self.pointer}" if self.pointer else place


def _start(item: tuple[int, int]) -> int:
    return item[0]


class _Document:
    """JSON text in a slot. `offsets[n]` is where byte n of it stands in the slot, None where that
    is the same; `whole` where its place can only be told as a whole."""

    def __init__(
        self,
        text: bytes,
        put: Callable[[bytes], bytes],
        *,
        offsets: Sequence[int] | None = None,
        start: int = 0,
        whole: tuple[int, int] | None = None,
        lists: Sequence[str] = (),
    ) -> None:
        self.text = text
        self.put = put
        self._offsets = offsets
        self._start = start
        self._whole = whole
        self.tokens = scan(text, tokens_max=limits.provenance_tokens_max)
        self.items: list[tuple[int, int]] | None = None
        for pointer in lists:
            self.items = self.items if self.items is not None else items_of(self.tokens, pointer)

    def span(self, token: Token) -> tuple[int, int]:
        """A token's place in the slot."""
        if self._whole is not None:
            return self._whole
        if self._offsets is not None:
            return self._offsets[token.start], self._offsets[token.end]
        return token.start + self._start, token.end + self._start

    def item_of(self, token: Token) -> int | None:
        """The item that a token stands in."""
        items = self.items or []
        number = bisect_right(items, token.start, key=_start) - 1
        return number if number >= 0 and token.end <= items[number][1] else None

    def written(self, token: Token | None, new: bytes, item: int | None) -> bytes:
        """The slot's text with a token replaced, and of the items only one kept."""
        if item is None or not self.items:
            pieces = [(0, len(self.text))]
        else:
            pieces = [(0, self.items[0][0]), self.items[item], (self.items[-1][1], len(self.text))]
        out = []
        for start, end in pieces:
            piece = self.text[start:end]
            if token is not None and start <= token.start and token.end <= end:
                piece = piece[: token.start - start] + new + piece[token.end - start :]
            out.append(piece)
        return self.put(b"".join(out))


class _Slot:
    """A stretch of raw text. `at` is where it begins in its part."""

    def __init__(self, part: str, name: str, raw: bytes, at: int, document: _Document | None):
        self.part = part
        self.name = name
        self.raw = raw
        self.at = at
        self.document = document


class _Place(msgspec.Struct, frozen=True):
    slot: int
    token: Token | None


class Leaves:
    """The leaves of a request whose body is inflated; with `item`, of the events in its list only
    those of that one. `cut` says in words what a bound has left out."""

    def __init__(self, request: Request, dialect: Dialect, item: int | None = None) -> None:
        headers = {k: v for k, v in request.headers.items() if k not in _NOT_READ}
        self._request = msgspec.structs.replace(request, headers=headers)
        self._slots: list[_Slot] = []
        self._fields: list[tuple[str, bool, int]] = []  # name as written, has "=", its slot
        self._form: list[tuple[str, bool, int]] | None = None
        self._segments: dict[int, int] = {}  # of the path, by number: its slot
        self._item = item
        self._cookie = ""  # the pair's name, with its equals sign
        self.cut = ""
        self._of_path(dialect)
        query = request.query.encode("latin-1", "replace")
        begin = len(request.target) - len(request.query)
        self._fields = self._of_fields("query", query, begin)
        for name, value in headers.items():
            self._of_header(name, value)
        self._of_body()
        for part, text in (("answer", request.state), ("connection", request.peer)):
            if text:
                self._add(part, "", text.encode("utf-8", "replace"), 0)
        self.leaves: list[Leaf] = []
        self._places: list[_Place] = []
        for number, slot in enumerate(self._slots):
            self._collect(number, slot)

    @property
    def items(self) -> int | None:
        """How many events the list holds; None where there is no list that could be read."""
        for slot in self._slots:
            if slot.document is not None and slot.document.items is not None:
                return len(slot.document.items)
        return None

    # --- reading ---------------------------------------------------------------------------------

    def _add(
        self, part: str, name: str, raw: bytes, at: int, document: _Document | None = None
    ) -> int:
        self._slots.append(_Slot(part, name, raw, at, document))
        return len(self._slots) - 1

    def _of_path(self, dialect: Dialect) -> None:
        path = self._request.target.partition("?")[0]
        names = self._path_names(dialect)
        at = place = 0
        for number, segment in enumerate(path.split("/")):
            if segment:
                name = names[place] if place < len(names) else ""
                if name:
                    raw = segment.encode("latin-1", "replace")
                    self._segments[number] = self._add("path", name, raw, at)
                place += 1
            at += len(segment) + 1

    def _path_names(self, dialect: Dialect) -> list[str]:
        """The parameter that each segment is, "" for a literal one."""
        for route in dialect.ROUTES:
            segments = [one for one in route.path.split("/") if one]
            names = [one[1:-1] if one.startswith("{") else "" for one in segments]
            count = sum(1 for one in self._request.target.partition("?")[0].split("/") if one)
            same = {name for name in names if name} == set(self._request.params)
            if route.endpoint == self._request.endpoint and same and count == len(names):
                return names
        return []

    def _of_fields(self, part: str, text: bytes, at: int) -> list[tuple[str, bool, int]]:
        fields = []
        seen_data = False
        for field in text.split(b"&"):
            name, mark, value = field.partition(b"=")
            plain = percent_decode(as_characters(name.decode("latin-1")))
            document = None
            if plain == "data" and not seen_data and self._request.dialect == "vibetrace":
                seen_data = True
                document = self._escaped(value)
            begin = at + len(name) + len(mark)
            if field:
                slot = self._add(part, plain, value, begin, document)
                fields.append((name.decode("latin-1"), bool(mark), slot))
            else:
                fields.append(("", False, -1))
            at += len(field) + 1
        return fields

    def _escaped(self, value: bytes) -> _Document | None:
        text = bytearray()
        offsets = []
        for match in _ESCAPED.finditer(value):
            piece = match[0]
            offsets.append(match.start())
            if len(piece) == 3:
                text.append(int(piece[1:], 16))
            else:
                text += b" " if piece == b"+" else piece
        offsets.append(len(value))
        return self._document(
            bytes(text),
            lambda new: quote_from_bytes(new, safe="").encode(),
            offsets=offsets,
            lists=_LISTS["vibetrace"],
        )

    def _of_header(self, name: str, value: str) -> None:
        raw = value.encode("latin-1", "replace")
        if name != "cookie":
            self._add("header", name, raw, 0)
            return
        # Only _vt_user is kept: userId_sessionId_flag_flag.
        at = raw.find(b"=") + 1
        self._cookie = value[:at]
        for piece in raw[at:].split(b"_"):
            self._add("header", name, piece, at)
            at += len(piece) + 1

    def _of_body(self) -> None:
        request = self._request
        body = request.body
        if not body:
            return
        is_json = body.lstrip(_BOM + b" \t\r\n")[:1] in (b"{", b"[")
        writes_form = request.dialect == "vibetrace" or (
            request.dialect == "gamooga" and request.endpoint != "evwidj"
        )
        if not is_json and writes_form and request.method == "POST":
            self._form = self._of_fields("form", body, 0)
            return
        bom = _BOM if body.startswith(_BOM) else b""
        document = self._document(
            body[len(bom) :],
            lambda new: bom + new,
            start=len(bom),
            lists=_LISTS.get(request.dialect, ()),
        )
        if document is not None and request.dialect == "vibetrace":
            document = self._within(document, bom) or document
        self._add("body", "", body, 0, document)

    def _within(self, outer: _Document, bom: bytes) -> _Document | None:
        """Vibetrace's list as text within a JSON body."""
        token = next(
            (one for one in outer.tokens if one.kind == "leaf" and one.pointer == "/data"), None
        )
        if token is None:
            return None
        try:
            text = msgspec.json.decode(outer.text[token.start : token.end], type=str)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return self._document(
            text.encode(),
            lambda new: (
                bom
                + outer.written(token, msgspec.json.encode(new.decode("utf-8", "replace")), None)[
                    len(bom) :
                ]
            ),
            whole=outer.span(token),
            lists=_LISTS["vibetrace"],
        )

    def _document(
        self,
        text: bytes,
        put: Callable[[bytes], bytes],
        *,
        offsets: Sequence[int] | None = None,
        start: int = 0,
        whole: tuple[int, int] | None = None,
        lists: Sequence[str] = (),
    ) -> _Document | None:
        if text.lstrip(b" \t\r\n")[:1] not in (b"{", b"["):
            return None
        if len(text) > limits.provenance_bytes_max:
            self.cut = f"more than {limits.provenance_bytes_max} bytes: not looked into"
            return None
        try:
            return _Document(text, put, offsets=offsets, start=start, whole=whole, lists=lists)
        except BadJson as bad:
            if "more than" in str(bad):
                self.cut = f"{bad}: not looked into"
            return None

    def _collect(self, number: int, slot: _Slot) -> None:
        document = slot.document
        if document is None:
            self._leaf(number, slot, None, 0, len(slot.raw), slot.raw)
            return
        for token in document.tokens:
            if token.kind == "leaf":
                if self._item is not None and document.item_of(token) not in (None, self._item):
                    continue
                if self._full():
                    return
                start, end = document.span(token)
                self._leaf(number, slot, token, start, end, document.text[token.start : token.end])

    def _full(self) -> bool:
        full = len(self.leaves) >= limits.provenance_leaves_max
        if full:
            self.cut = f"more than {limits.provenance_leaves_max} values: the rest is not traced"
        return full

    def _leaf(
        self, number: int, slot: _Slot, token: Token | None, start: int, end: int, text: bytes
    ) -> None:
        if self._full():
            return
        shown = text.decode("utf-8", "replace")
        self._places.append(_Place(number, token))
        self.leaves.append(
            Leaf(
                part=slot.part,
                name=slot.name,
                pointer=token.pointer if token is not None else "",
                start=slot.at + start,
                end=slot.at + end,
                text=shown[:_TEXT_CHARACTERS_MAX],
                item=slot.document.item_of(token) if slot.document and token else None,
            )
        )

    # --- writing ---------------------------------------------------------------------------------

    def is_json(self, leaf: int) -> bool:
        """Whether a leaf's text is a JSON token."""
        return self._places[leaf].token is not None

    def raw(self, leaf: int) -> bytes:
        """A leaf's whole text."""
        place = self._places[leaf]
        slot = self._slots[place.slot]
        if place.token is None or slot.document is None:
            return slot.raw
        return slot.document.text[place.token.start : place.token.end]

    def alone(self, item: int | None) -> Request:
        """The request with one event of its list only; None: as it is."""
        return self._built({}, item)

    def changed(self, leaf: int, new: bytes, item: int | None = None) -> Request:
        """The request with another text in a leaf's place, and one event of its list only."""
        place = self._places[leaf]
        slot = self._slots[place.slot]
        if place.token is not None and slot.document is not None:
            return self._built({place.slot: slot.document.written(place.token, new, item)}, item)
        return self._built({place.slot: new}, item)

    def _built(self, edits: Mapping[int, bytes], item: int | None) -> Request:
        request = self._request
        texts = [edits.get(number, slot.raw) for number, slot in enumerate(self._slots)]
        if item is not None:
            for number, slot in enumerate(self._slots):
                if number not in edits and slot.document is not None and slot.document.items:
                    texts[number] = slot.document.written(None, b"", item)
        headers = dict(request.headers)
        params = dict(request.params)
        body, state, peer = request.body, request.state, request.peer
        cookie = []
        for slot, text in zip(self._slots, texts, strict=True):
            words = text.decode("latin-1")
            if slot.part == "header" and slot.name == "cookie":
                cookie.append(words)
            elif slot.part == "header" and (words or not slot.raw):
                headers[slot.name] = words
            elif slot.part == "header":
                headers.pop(slot.name, None)
            elif slot.part == "path":
                params[slot.name] = unquote(words, errors="replace")
            elif slot.part == "body":
                body = text
            elif slot.part == "answer":
                state = text.decode("utf-8", "replace")
            elif slot.part == "connection":
                peer = words
        if cookie:
            headers["cookie"] = self._cookie + "_".join(cookie)
        path, mark, _ = request.target.partition("?")
        segments = path.split("/")
        for number, place in self._segments.items():
            segments[number] = texts[place].decode("latin-1")
        target = "/".join(segments) + mark + _joined(self._fields, texts)
        if self._form is not None:
            body = _joined(self._form, texts).encode("latin-1")
        return msgspec.structs.replace(
            request,
            target=target,
            headers=headers,
            params=params,
            body=body,
            state=state,
            peer=peer,
        )

    # --- showing ---------------------------------------------------------------------------------

    def readable(self) -> list[tuple[str, list[int]]]:
        """The request laid out for reading: escapes undone, one value a line. Pieces in order, each
        with the leaves that it is."""
        numbers = {
            (place.slot, place.token.start if place.token is not None else -1): leaf
            for leaf, place in enumerate(self._places)
        }
        out: list[tuple[str, list[int]]] = []
        part = ""
        for number, slot in enumerate(self._slots):
            head = f"{slot.part}  {slot.name}".rstrip()
            if slot.part == "body":
                head = "body"
            out.append((("\n" if part and part != slot.part else "") + head + "  ", []))
            part = slot.part
            if slot.document is None:
                text = slot.raw.decode("latin-1")
                if slot.part in ("query", "form", "path"):
                    text = percent_decode(as_characters(text))
                elif slot.part == "body":
                    text = slot.raw.decode("utf-8", "backslashreplace")
                leaf = numbers.get((number, -1))
                out.append((text, [] if leaf is None else [leaf]))
            else:
                tokens = slot.document.tokens
                for piece, token in indented(slot.document.text, tokens):
                    start = tokens[token].start if token is not None else -2
                    leaf = numbers.get((number, start))
                    words = piece.decode("utf-8", "backslashreplace")
                    out.append((words, [] if leaf is None else [leaf]))
            out.append(("\n", []))
        return out


def _joined(fields: Sequence[tuple[str, bool, int]], texts: Sequence[bytes]) -> str:
    written = []
    for name, mark, slot in fields:
        value = texts[slot].decode("latin-1") if slot >= 0 else ""
        written.append(f"{name}={value}" if mark or value else name)
    return "&".join(written)
