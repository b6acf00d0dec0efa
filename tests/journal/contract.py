"""What every engine of the journal promises; an engine's tests inherit this class."""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

from headwater.accept.request import Request
from headwater.errors import FolderInUse, JournalFull
from headwater.journal.journal import Position, Reader, Writer
from tests.journal.requests import RECEIVED_AT, append, ids, read_all, request


class Engine(Protocol):
    """Opens the ends of one and the same journal; `writer` is called on a running loop."""

    def writer(self, number: int = 1, *, bytes_max: int = 1 << 30) -> Writer: ...

    def reader(self) -> Reader: ...


class JournalContract:
    """Tests take the fixture `engine`, which the inheriting module defines."""

    def test_what_was_acknowledged_is_read_back_equal_and_in_order(self, engine: Engine) -> None:
        sent = [request(number, body=bytes(range(256)) * (number % 3)) for number in range(500)]

        async def write() -> None:
            writer = engine.writer()
            for start in range(0, len(sent), 50):
                assert await append(writer, sent[start : start + 50]) == [None] * 50
            await writer.close()

        asyncio.run(write())
        reader = engine.reader()
        batches = read_all(reader)
        assert [each for batch in batches for each in batch.requests] == sent
        positions = [batch.position for batch in batches]
        assert positions == sorted(set(positions))
        assert read_all(reader) == batches, "positions do not change"
        reader.close()

    def test_a_reader_sees_what_is_acknowledged_while_the_writer_goes_on(
        self, engine: Engine
    ) -> None:
        async def both() -> None:
            writer, reader = engine.writer(), engine.reader()
            after = Position(1, 0)
            for number in range(20):
                await append(writer, [request(number)])
                (batch,) = reader.read(after, batches_max=10, bytes_max=1 << 20)
                assert ids([batch]) == [request(number).request_id]
                after = batch.position
                assert reader.read(after, batches_max=10, bytes_max=1 << 20) == []
            reader.close()
            await writer.close()

        asyncio.run(both())

    def test_what_arrives_together_shares_a_commit(self, engine: Engine) -> None:
        async def write() -> None:
            writer = engine.writer()
            await append(writer, [request(number) for number in range(1000)])
            await writer.close()

        asyncio.run(write())
        reader = engine.reader()
        assert len(read_all(reader)) <= 2
        reader.close()

    def test_a_batch_is_bounded(self, engine: Engine) -> None:
        async def write() -> None:
            writer = engine.writer()
            small = [request(number) for number in range(3000)]
            large = [request(number, body=bytes(3_000_000)) for number in range(3000, 3005)]
            assert set(await append(writer, small + large)) == {None}
            await writer.close()

        asyncio.run(write())
        reader = engine.reader()
        batches = read_all(reader)
        assert max(len(batch.requests) for batch in batches) <= 2048
        assert max(sum(len(r.body) for r in batch.requests) for batch in batches) <= 8 << 20
        assert len(ids(batches)) == 3005
        reader.close()

    def test_done_is_never_called_within_append(self, engine: Engine) -> None:
        async def write() -> None:
            writer = engine.writer()
            called: list[Exception | None] = []
            writer.append(request(1), 1, called.append)
            assert called == []
            await writer.close()
            assert called == [None]
            writer.append(request(2), 1, called.append)
            assert len(called) == 1
            await asyncio.sleep(0.01)
            assert isinstance(called[1], Exception), "a closed journal takes nothing"
            assert not writer.healthy

        asyncio.run(write())

    def test_one_answer_that_fails_does_not_keep_the_others_from_theirs(
        self, engine: Engine
    ) -> None:
        async def write() -> None:
            loop = asyncio.get_running_loop()
            told: list[object] = []
            loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
            writer = engine.writer()
            called: list[Exception | None] = []
            trouble = RuntimeError("this connection is gone")

            def fail(_: Exception | None) -> None:
                raise trouble

            writer.append(request(1), 1, fail)
            writer.append(request(2), 1, called.append)
            await writer.close()
            assert called == [None]
            assert told == [trouble]

        asyncio.run(write())

    def test_a_request_that_cannot_be_written_fails_alone(self, engine: Engine) -> None:
        async def write() -> list[Exception | None]:
            writer = engine.writer()
            bad = request(2)
            bad.target = "/\ud800"  # a lone surrogate has no bytes
            outcomes = await append(writer, [request(1), bad, request(3)])
            await writer.close()
            return outcomes

        first, second, third = asyncio.run(write())
        assert (first, third) == (None, None)
        assert isinstance(second, Exception)

    def test_writers_do_not_mix(self, engine: Engine) -> None:
        async def write() -> None:
            one, two = engine.writer(1), engine.writer(2)
            await asyncio.gather(append(one, [request(1)]), append(two, [request(2)]))
            await one.close()
            await two.close()

        asyncio.run(write())
        reader = engine.reader()
        assert reader.writers() == [1, 2]
        assert ids(read_all(reader, 1)) == [request(1).request_id]
        assert ids(read_all(reader, 2)) == [request(2).request_id]
        assert reader.read(Position(3, 0), batches_max=1, bytes_max=1) == []
        reader.close()

    def test_a_second_writer_of_the_same_number_is_refused(self, engine: Engine) -> None:
        async def write() -> None:
            writer = engine.writer()
            with pytest.raises(FolderInUse) as refused:
                engine.writer()
            assert refused.value.remedy
            await writer.close()

        asyncio.run(write())

    def test_a_restarted_writer_goes_on_behind_what_there_is(self, engine: Engine) -> None:
        async def write(numbers: range) -> None:
            writer = engine.writer()
            for number in numbers:
                await append(writer, [request(number)])
            await writer.close()

        for start in (0, 10, 20):
            asyncio.run(write(range(start, start + 10)))
        reader = engine.reader()
        batches = read_all(reader)
        assert ids(batches) == [request(number).request_id for number in range(30)]
        positions = [batch.position for batch in batches]
        assert positions == sorted(set(positions))
        reader.close()

    def test_pending_counts_events_that_are_not_loaded(self, engine: Engine) -> None:
        async def write() -> None:
            writer = engine.writer()
            await append(writer, [request(1), request(2)], events=10)
            await append(writer, [request(3, account="other")], events=5)
            await append(writer, [request(4)], events=0)
            await writer.close()

        asyncio.run(write())
        reader = engine.reader()
        first, second, third = read_all(reader)
        assert first.counts == {("acme", "vaix"): 20}
        assert reader.pending({}) == {("acme", "vaix"): 20, ("other", "vaix"): 5}
        assert reader.pending({1: first.position.batch}) == {
            ("acme", "vaix"): 0,
            ("other", "vaix"): 5,
        }
        assert reader.pending({1: second.position.batch}) == {("acme", "vaix"): 0}
        assert reader.pending({1: third.position.batch}) == {}
        reader.close()

    def test_find_by_time_and_by_request_id(self, engine: Engine) -> None:
        hour = 3_600_000_000

        def at(number: int) -> Request:
            return request(number, at=RECEIVED_AT + number * hour)

        async def write() -> None:
            writer = engine.writer()
            for number in range(10):
                await append(writer, [at(number)])
            await writer.close()

        asyncio.run(write())
        reader = engine.reader()
        positions = [batch.position for batch in read_all(reader)]
        assert list(reader.find()) == positions
        since, until = RECEIVED_AT + 3 * hour, RECEIVED_AT + 6 * hour
        assert list(reader.find(since=since, until=until)) == positions[3:6]
        assert list(reader.find(request_id=at(7).request_id)) == [positions[7]]
        assert list(reader.find(request_id=request(77).request_id)) == []
        reader.close()

    def test_a_full_journal_refuses_and_keeps_what_it_has(self, engine: Engine) -> None:
        async def write() -> list[Request]:
            writer = engine.writer(bytes_max=1 << 20)
            kept = []
            for number in range(100):
                each = request(number, body=bytes(50_000))
                (outcome,) = await append(writer, [each])
                if outcome is not None:
                    assert isinstance(outcome, JournalFull)
                    assert outcome.remedy
                    break
                kept.append(each)
            assert not writer.healthy
            await writer.close()
            return kept

        kept = asyncio.run(write())
        assert 5 < len(kept) < 50
        reader = engine.reader()
        assert ids(read_all(reader)) == [each.request_id for each in kept]
        assert reader.bytes_used() < 2 << 20
        reader.close()
