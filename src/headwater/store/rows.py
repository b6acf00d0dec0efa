"""Events and rejections as columns: what the loader collects for one insert, as an Arrow stream.

Rows are built column by column, because a list comprehension over one attribute costs a tenth of
building a row object; the columns go to ClickHouse as Arrow, which it takes in without parsing. The
two JSON columns go as text. Before sending, rows of equal context are put together
(:func:`grouped`): the store parses each context once, see schema/0001-first.sql.

An Arrow batch here is always flat, one row an event, so that it can be cut anywhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headwater.accept.request import Request
from headwater.event import Event, Identity, Rejection, effective_at
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.keys import NOBODY
from headwater.resolve.sessions import DERIVED
from headwater.store.fit import EMPTY, fit, json_text, kept_as_text, profile_text

#: (writer, batch, request in the batch, event in the request)
Place = tuple[int, int, int, int]

_TIME = pa.timestamp("us", "UTC")
_ID = pa.binary(16)
_IDS = pa.list_(_ID)
_IDENTITY = pa.struct(
    [
        ("namespace", pa.string()),
        ("scope", pa.string()),
        ("value", pa.string()),
        ("strength", pa.string()),
        ("denied", pa.bool_()),
    ]
)
_TEXTS = pa.list_(pa.string())
EVENT_SCHEMA = pa.schema(
    [
        ("context_text", pa.binary()),
        ("event_id", _ID),
        ("request_id", _ID),
        ("account", pa.string()),
        ("dialect", pa.string()),
        ("scope", pa.string()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("occurred_at", _TIME),
        ("received_at", _TIME),
        ("ordered_at", _TIME),
        ("session_id", _ID),
        ("session", pa.string()),
        ("identities", pa.list_(_IDENTITY)),
        ("keys", _IDS),
        ("subject", _ID),
        ("principal", _ID),
        ("properties_text", pa.binary()),
        ("profile_set", pa.binary()),
        ("profile_unset", _TEXTS),
        ("raw", pa.binary()),
        ("issues", _TEXTS),
        ("transport", pa.string()),
        ("writer", pa.uint16()),
        ("batch", pa.uint64()),
        ("request", pa.uint32()),
        ("idx", pa.uint32()),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("request_id", _ID),
        ("account", pa.string()),
        ("dialect", pa.string()),
        ("scope", pa.string()),
        ("received_at", _TIME),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("request_text", pa.string()),
        ("transport", pa.string()),
        ("item", pa.uint32()),
        ("writer", pa.uint16()),
        ("batch", pa.uint64()),
        ("request", pa.uint32()),
        ("idx", pa.uint32()),
    ]
)

#: DateTime64(6) of ClickHouse: 1900-01-01 to 2299-12-31.
_TIME_MIN = -2_208_988_800_000_000
_TIME_MAX = 10_413_791_999_000_000
#: What a rejected row shows of its request at most; the journal has all of it.
_READABLE_BYTES_MAX = 65_536


class Source(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request, its place in the journal, and how many of the rows came in it."""

    request: Request
    writer: int
    batch: int
    number: int
    rows: int


def event_ids(events: Sequence[Event], requests: Sequence[Request]) -> pa.Array:
    """Deterministic (design, decision 3): from the dedupe key where there is one, else from the
    request's id and the event's place in it. UUIDv8 (RFC 9562, section 5.8)."""
    keys = b"".join(
        [
            e.dedupe or blake2b(r.request_id + e.index.to_bytes(4, "big"), digest_size=16).digest()
            for e, r in zip(events, requests, strict=True)
        ]
    )
    return _ids([_uuids8(keys)])


def _uuids8(keys: bytes) -> bytes:
    """Every 16 bytes with the version and variant bits of a UUIDv8; one long number at once."""
    count = len(keys) // 16
    clear = int.from_bytes(_CLEAR * count, "big")
    bits = int.from_bytes(_BITS * count, "big")
    return (int.from_bytes(keys, "big") & clear | bits).to_bytes(len(keys), "big")


_CLEAR = bytes.fromhex("ffffffff ffff 0fff 3fff ffffffffffff")
_BITS = bytes.fromhex("00000000 0000 8000 8000 000000000000")


def events_batch(
    events: Sequence[Event], sources: Sequence[Source], sessions: SessionIds
) -> pa.RecordBatch:
    """The rows of `events`, which came in `sources`, both in order; flat, columns as EVENT_SCHEMA.
    Adds the client's address and user agent to each event's context. The rows are nobody's until
    :func:`attributed` has had them."""
    if not events:
        return pa.RecordBatch.from_pylist([], schema=EVENT_SCHEMA)
    requests = [one.request for one in sources for _ in range(one.rows)]
    of_source = _columns_of(sources)
    issues = [[str(issue) for issue in e.issues] if e.issues else () for e in events]
    contexts = _contexts(events, requests, issues)
    properties: list[bytes] = []
    for number, event in enumerate(events):
        text, as_text = fit(event.properties)
        properties.append(text)
        if as_text:
            issues[number] = [*issues[number], "kept_as_text: properties"]
    occurred = [
        at if (at := e.occurred_at) is not None and _TIME_MIN <= at <= _TIME_MAX else r.received_at
        for e, r in zip(events, requests, strict=True)
    ]
    ordered = [effective_at(e, r.received_at) for e, r in zip(events, requests, strict=True)]
    identities = _identities([e.identities for e in events])
    columns: list[pa.Array] = [
        pa.array(contexts, pa.binary()),
        event_ids(events, requests),
        of_source["request_id"],
        of_source["account"],
        of_source["dialect"],
        _strings([e.scope for e in events]),
        _strings([e.kind for e in events]),
        _strings([e.name for e in events]),
        pa.array(occurred, pa.int64()).view(_TIME),
        of_source["received_at"],
        pa.array(ordered, pa.int64()).view(_TIME),
        pa.array(
            [
                sessions.find(e, r) if e.session else None
                for e, r in zip(events, requests, strict=True)
            ],
            _ID,
        ),
        _strings([e.session or "" for e in events]),
        identities,
        _no_keys(identities),
        _ids([NOBODY] * len(events)),
        _ids([NOBODY] * len(events)),
        pa.array(properties, pa.binary()),
        pa.array(
            [profile_text(e.profile_set) if e.profile_set else b"" for e in events], pa.binary()
        ),
        _lists([e.profile_unset for e in events]),
        pa.array([json_text(e.raw) if e.raw else b"" for e in events], pa.binary()),
        _lists(issues),
        of_source["transport"],
        of_source["writer"],
        of_source["batch"],
        of_source["request"],
        pa.array([e.index for e in events], pa.uint32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT_SCHEMA)


def _identities(lists: Sequence[list[Identity]]) -> pa.Array:
    """Events of one request mostly have equal identities: runs of equal lists are made once."""
    distinct: list[list[Identity]] = []
    places: list[int] = []
    last: list[Identity] | None = None
    for one in lists:
        if one != last:
            distinct.append(one)
            last = one
        places.append(len(distinct) - 1)
    flat = [identity for one in distinct for identity in one]
    structs = pa.StructArray.from_arrays(
        [
            _strings([one.namespace for one in flat]),
            _strings([one.scope for one in flat]),
            _strings([one.value for one in flat]),
            _strings([one.strength for one in flat]),
            pa.array([one.denied for one in flat], pa.bool_()),
        ],
        fields=list(_IDENTITY),
    )
    return _spread(distinct, structs, places)


def _spread(distinct: Sequence[Sequence[Any]], flat: pa.Array, places: Sequence[int]) -> pa.Array:
    """A list for each of `places`, which count `distinct` lists; `flat` holds those one by one."""
    offsets = list(accumulate([len(one) for one in distinct], initial=0))
    found = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return found if len(distinct) == len(places) else found.take(pa.array(places, pa.int32()))


def _ids(values: Sequence[bytes]) -> pa.Array:
    """Ids that lie one behind another in `values`."""
    data = b"".join(values)
    return pa.FixedSizeBinaryArray.from_buffers(_ID, len(data) // 16, [None, pa.py_buffer(data)])


def _no_keys(identities: pa.ListArray) -> pa.Array:
    """No key for each identity."""
    return pa.ListArray.from_arrays(identities.offsets, _ids([bytes(16 * len(identities.values))]))


def attributed(
    batch: pa.RecordBatch,
    *,
    subjects: Sequence[bytes],
    principals: Sequence[bytes],
    keys: Sequence[Sequence[bytes]],
    sessions: Sequence[bytes | None],
) -> pa.RecordBatch:
    """The rows of a batch (of :func:`events_batch`) with who did them, one value a row: ids of 16
    bytes, NOBODY for none. `keys` are as many as the row has identities. `sessions` counts where
    the dialect's sessions are derived, None for none."""
    distinct: list[Sequence[bytes]] = []
    places: list[int] = []
    last: Sequence[bytes] | None = None
    for one in keys:
        if one is not last and one != last:
            distinct.append(one)
            last = one
        places.append(len(distinct) - 1)
    flat = _ids([key for one in distinct for key in one])
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["keys"] = _spread(distinct, flat, places)
    columns["subject"] = _ids(subjects)
    columns["principal"] = _ids(principals)
    derived = pc.is_in(columns["dialect"], pa.array(sorted(DERIVED)))
    given = pa.array(sessions, _ID)
    columns["session_id"] = pc.if_else(derived, given, columns["session_id"])
    for name in ("keys", "subject", "principal", "session_id"):
        assert len(columns[name]) == batch.num_rows, name
    assert len(columns["keys"].flatten()) == len(columns["identities"].flatten())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def _columns_of(sources: Sequence[Source]) -> dict[str, pa.Array]:
    """The columns that all rows of a request share, a value for each row."""
    requests = [one.request for one in sources]
    columns: dict[str, pa.Array] = {
        "request_id": pa.array([r.request_id for r in requests], _ID),
        "account": _strings([r.account for r in requests]),
        "dialect": _strings([r.dialect for r in requests]),
        "received_at": pa.array([r.received_at for r in requests], pa.int64()).view(_TIME),
        "transport": _strings([r.transport for r in requests]),
        "writer": pa.array([one.writer for one in sources], pa.uint16()),
        "batch": pa.array([one.batch for one in sources], pa.uint64()),
        "request": pa.array([one.number for one in sources], pa.uint32()),
    }
    if all(one.rows == 1 for one in sources):
        return columns
    rows = [place for place, one in enumerate(sources) for _ in range(one.rows)]
    places = pa.array(rows, pa.int32())
    return {name: column.take(places) for name, column in columns.items()}


def _contexts(
    events: Sequence[Event], requests: Sequence[Request], issues: list[Any]
) -> list[bytes]:
    """The context of each event as text, with the client's address and user agent added."""
    contexts: list[bytes] = []
    plain_of: Request | None = None
    plain = EMPTY
    for number, (event, request) in enumerate(zip(events, requests, strict=True)):
        context = event.context
        if not context and request is plain_of:
            contexts.append(plain)
            continue
        empty = not context
        if request.peer and "ip" not in context:
            context["ip"] = request.peer
        agent = request.headers.get("user-agent")
        if agent and "user_agent" not in context:
            context["user_agent"] = agent
        text, as_text = fit(context)
        contexts.append(text)
        if empty:
            plain_of, plain = request, text
        if as_text:
            issues[number] = [*issues[number], "kept_as_text: context"]
    return contexts


def rejected_batch(rejections: Sequence[Rejection], sources: Sequence[Source]) -> pa.RecordBatch:
    """The rows of `rejections`, which came in `sources`, both in order; columns as
    REJECTED_SCHEMA."""
    requests = [one.request for one in sources for _ in range(one.rows)]
    of_source = _columns_of(sources)
    columns: list[pa.Array] = [
        of_source["request_id"],
        of_source["account"],
        of_source["dialect"],
        _strings([one.scope for one in rejections]),
        of_source["received_at"],
        _strings([one.reason for one in rejections]),
        _strings([one.detail for one in rejections]),
        _strings([readable(r, one.piece) for r, one in zip(requests, rejections, strict=True)]),
        of_source["transport"],
        pa.array([one.index for one in rejections], pa.uint32()),
        of_source["writer"],
        of_source["batch"],
        of_source["request"],
        pa.array([place for one in sources for place in range(one.rows)], pa.uint32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=REJECTED_SCHEMA)


def readable(request: Request, piece: str = "") -> str:
    """A request as a person reads it: request line, headers, body; of a batch only the refused
    `piece`. Bytes that are no UTF-8 as escapes; at most 64 KiB."""
    lines = [f"{request.method} {request.target}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\n".join(lines)
    body = piece or request.body[: _READABLE_BYTES_MAX + 4].decode("utf-8", "backslashreplace")
    text = f"{head}\n\n{body}" if body else head
    if len(text) > _READABLE_BYTES_MAX:
        text = text[:_READABLE_BYTES_MAX] + "\n[cut here; the journal has all of it]"
    return text


def places_of(batch: pa.RecordBatch) -> list[Place]:
    """The places of a batch's rows, in order."""
    columns = [batch.column(name).to_pylist() for name in ("writer", "batch", "request", "idx")]
    return list(zip(*columns, strict=True))


def keep(batch: pa.RecordBatch, wanted: Iterable[bool]) -> pa.RecordBatch:
    """The rows whose flag is set."""
    return batch.filter(pa.array(list(wanted), pa.bool_()))


def as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """One row whose JSON columns are kept as text: the form that always fits."""
    assert batch.num_rows == 1
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in ("context_text", "properties_text"):
        text = columns[name][0].as_py()
        columns[name] = pa.array([kept_as_text(text) if text != EMPTY else text], pa.binary())
    issues = [*columns["issues"][0].as_py(), "kept_as_text: refused by the store"]
    columns["issues"] = pa.array([issues], _TEXTS)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def grouped(batch: pa.RecordBatch) -> pa.RecordBatch:
    """One row for each context, with lists of its events' columns: the shape of `events_in`."""
    contexts = batch.column(0).dictionary_encode()
    order = pc.sort_indices(contexts.indices)
    numbers = contexts.indices.take(order)
    # Sorted numbers 0, 0, 1, 2, 2 …: a group ends where the count so far does.
    counts = pc.value_counts(numbers)
    sizes = counts.field("counts").to_pylist()
    bounds = pa.array(list(accumulate(sizes, initial=0)), pa.int32())
    rows = batch.take(order) if len(sizes) > 1 else batch
    columns: list[pa.Array] = [contexts.dictionary.take(counts.field("values"))]
    columns += [pa.ListArray.from_arrays(bounds, column) for column in rows.columns[1:]]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def stream(batch: pa.RecordBatch) -> pa.Buffer:
    """A batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def uuid_text(value: bytes) -> str:
    """16 bytes as a UUID's text."""
    return str(uuid.UUID(bytes=value))


def _strings(values: list[str]) -> pa.Array:
    return _array(values, pa.string(), _clean)


def _lists(values: Sequence[Sequence[str]]) -> pa.Array:
    if not any(values):
        return pa.ListArray.from_arrays(
            pa.array([0] * (len(values) + 1), pa.int32()), pa.array([], pa.string())
        )
    return _array(values, _TEXTS, lambda texts: [_clean(text) for text in texts])


def _array(values: Sequence[Any], kind: pa.DataType, clean: Callable[[Any], Any]) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([clean(value) for value in values], kind)


def _clean(text: str) -> str:
    """A lone surrogate becomes its escape: stored text is valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
