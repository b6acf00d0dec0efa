"""An empty store for each test."""

from __future__ import annotations

import pytest

from headwater.store.clickhouse import Store
from tests.store.opened import empty_store


@pytest.fixture
def store() -> Store:
    """chDB with the schema and no rows."""
    return empty_store()
