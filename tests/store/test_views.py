"""The views `people`, `identities` and `profile_history`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from headwater.event import Event, Identity
from headwater.resolve.keys import NOBODY
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from tests.store.made import AT, an_id, insert_by, make_event, make_request

S, W, V, E = an_id(1), an_id(2), an_id(3), an_id(4)
USER = Identity("nucleus:user", "app", "u1", "strong")
OTHER_USER = Identity("nucleus:user", "app", "u2", "strong")
DEVICE = Identity("nucleus:anon", "app", "a1", "weak")
DENIED = Identity("nucleus:anon", "app", "null", "weak", True)
LOOKED_UP = Identity("email", "", "a@b.example", "lookup")
SECOND = 1_000_000


def at(seconds: int, **given: Any) -> Event:
    return make_event(occurred_at=AT + seconds * SECOND, **given)


def properties(store: Store) -> Any:
    ((found,),) = store.query("SELECT properties FROM people").rows
    return found


def test_a_person_is_what_its_events_say(store: Store) -> None:
    insert_by(store, at(5, identities=[USER, DEVICE]), subject=S, keys=[S, W])
    insert_by(store, at(1, identities=[DEVICE, DENIED]), subject=S, keys=[W, NOBODY])
    insert_by(store, at(0), subject=V, principal=NOBODY)
    found = store.query("SELECT * FROM people")
    assert found.columns[:6] == [
        "account", "person_id", "first_seen", "last_seen", "properties", "identities",
    ]  # fmt: skip
    assert found.rows == [
        [
            "acme",
            UUID(bytes=S),
            datetime.fromtimestamp(AT / 1e6 + 1, UTC),
            datetime.fromtimestamp(AT / 1e6 + 5, UTC),
            {},
            [
                {"namespace": "nucleus:anon", "value": "a1"},
                {"namespace": "nucleus:user", "value": "u1"},
            ],
            2,
        ]
    ]


def test_an_email_that_is_only_looked_up_is_its_owners_alone(store: Store) -> None:
    browser = Identity("vibetrace:user", "A", "1", "weak")
    insert_by(store, at(0, identities=[browser, LOOKED_UP]), subject=W, keys=[W, E])
    insert_by(store, at(1, identities=[LOOKED_UP]), subject=E, keys=[E])
    rows = store.query("SELECT person_id, identities.value FROM people ORDER BY person_id").rows
    assert rows == [[UUID(bytes=W), ["1"]], [UUID(bytes=E), ["a@b.example"]]]
    PeopleStore(store.writing()).write_aliases([(W, E)])
    rows = store.query("SELECT person_id, identities.value FROM people").rows
    assert rows == [[UUID(bytes=E), ["a@b.example", "1"]]]


def test_of_each_property_the_last_change_in_order_counts(store: Store) -> None:
    changes: list[tuple[int, dict[str, Any], list[str]]] = [
        (3, {"plan": "pro", "n": 1.5, "tags": ["a", {"b": 0}], "on": True}, []),
        (1, {"plan": "free", "gone": 1, "back": 1}, []),
        (2, {}, ["gone", "back"]),
        (4, {"back": "2020-01-01"}, ["never"]),
        (5, {}, []),
    ]
    for seconds, put, taken in changes:
        insert_by(store, at(seconds, profile_set=put, profile_unset=taken), subject=S)
    assert properties(store) == {
        "plan": "pro",
        "n": 1.5,
        "tags": ["a", {"b": 0}],
        "on": True,
        "back": "2020-01-01",
    }
    assert store.query("SELECT properties.n::Float64 FROM people").rows == [[1.5]]


def test_properties_that_are_no_object_together_are_shown_as_text(store: Store) -> None:
    insert_by(store, at(0, profile_set={"a": {"b": 1}}), subject=S)
    insert_by(store, at(1, profile_set={"a.b": 2}), subject=S)
    assert properties(store) == {"_text": '{"a":{"b":1},"a.b":2}'}


def test_a_value_that_json_cannot_have_does_not_hide_the_others(store: Store) -> None:
    odd = {"lone": "\ud800", "big": 2**70, "plain": 1, "k\ud800": 2, "deep": nested(350)}
    insert_by(store, at(0, profile_set=odd), subject=S)
    found = properties(store)
    assert found["plain"] == 1
    assert int(found["big"]) == 2**70
    assert found["lone"] == {"_text": '"\\ud800"'}
    assert found["k\\ud800"] == 2


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_identities_say_since_when_and_who_said_so(store: Store) -> None:
    insert_by(store, at(5, identities=[USER, DEVICE]), subject=S, keys=[S, W])
    insert_by(store, at(2, identities=[DEVICE]), subject=W, principal=S, keys=[W])
    insert_by(store, at(9, identities=[OTHER_USER, DEVICE]), subject=V, keys=[V, W])
    found = store.query(
        "SELECT person_id, namespace, scope, value, strength, shared, events, asserted_by, "
        "dateDiff('second', first_seen, last_seen) FROM identities ORDER BY ALL"
    ).rows
    events = dict(
        store.query(
            "SELECT dateDiff('second', received_at, occurred_at), event_id FROM events"
        ).rows
    )
    s, v = UUID(bytes=S), UUID(bytes=V)
    assert found == [
        [s, "nucleus:anon", "app", "a1", "weak", 1, 2, events[2], 3],
        [s, "nucleus:user", "app", "u1", "strong", 0, 1, events[5], 0],
        [v, "nucleus:anon", "app", "a1", "weak", 1, 1, events[9], 0],
        [v, "nucleus:user", "app", "u2", "strong", 0, 1, events[9], 0],
    ]
    one = store.query(f"SELECT value, shared FROM identities WHERE person_id = '{v}' ORDER BY 1")
    assert one.rows == [["a1", 1], ["u2", 0]]


def test_the_history_of_a_profile_has_every_change(store: Store) -> None:
    insert_by(store, at(1, profile_set={"plan": "pro"}, profile_unset=["x"]), subject=S)
    insert_by(store, at(2, profile_set={"plan": {"a": 1}}), subject=S, principal=NOBODY)
    rows = store.query(
        "SELECT account, person_id, key, value, dialect FROM profile_history ORDER BY key"
    ).rows
    s = UUID(bytes=S)
    assert rows == [["acme", s, "plan", '"pro"', "nucleus"], ["acme", s, "x", None, "nucleus"]]


def test_accounts_are_apart(store: Store) -> None:
    insert_by(store, at(0), subject=S)
    insert_by(store, at(0), subject=V, request=make_request(account="other"))
    rows = store.query("SELECT account, person_id FROM people ORDER BY account").rows
    assert rows == [["acme", UUID(bytes=S)], ["other", UUID(bytes=V)]]
