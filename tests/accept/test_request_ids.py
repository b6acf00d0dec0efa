"""Request ids: UUIDv7, in order, whatever the clock does."""

from __future__ import annotations

import uuid

from headwater.accept.request_ids import RequestIds

AT = 1_795_226_263_000_123


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    one = uuid.UUID(bytes=RequestIds().next(AT))
    assert (one.version, one.variant) == (7, uuid.RFC_4122)
    assert one.int >> 80 == AT // 1_000


def test_ids_are_unique_and_ascend_within_and_across_microseconds() -> None:
    ids = RequestIds()
    made = [ids.next(AT + step // 1_000) for step in range(100_000)]
    assert made == sorted(set(made))


def test_a_clock_that_steps_back_a_little_does_not_undo_the_order() -> None:
    ids = RequestIds()
    made = [ids.next(AT - step) for step in range(1_000)]
    assert made == sorted(set(made))


def test_a_clock_that_was_set_back_by_a_day_is_followed() -> None:
    ids = RequestIds()
    ids.next(AT)
    day = 86_400_000_000
    assert uuid.UUID(bytes=ids.next(AT - day)).int >> 80 == (AT - day) // 1_000


def test_two_processes_do_not_make_the_same_id() -> None:
    assert RequestIds().next(AT) != RequestIds().next(AT)
