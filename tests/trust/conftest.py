"""One running server for the whole trust table; whatever a test sends, it must outlive them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.served import Served
from tests.trust.serving import ACCOUNTS, REVOKED, account, complaints, workers


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`headwater serve` with two accounts. At the end its worker is the one that it began with,
    nothing in its log speaks of an error, and the books close."""
    folder = tmp_path_factory.mktemp("trust")
    with Served(folder, ACCOUNTS + account("gone", REVOKED)) as running:
        began_with = workers(running)
        yield running
        for row in running.wait_loaded(60).values():
            assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
        assert workers(running) == began_with
        assert complaints(running) == []


@pytest.fixture
def port(served: Served) -> int:
    """The collector's port."""
    return served.collect_port
