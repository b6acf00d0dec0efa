"""Batches for the live feed: rows that are plain structs, picked one by one."""

from __future__ import annotations

import msgspec

from headwater.view.live import Filter, Picked


class Row(msgspec.Struct):
    """Enough of a row of the feed."""

    account: str = "acme"
    dialect: str = "vaix"
    name: str = "clicks:event"
    status: str = "stored"


class Rows(list[Row]):
    """What the loader has decided in one step."""

    def pick(self, wanted: Filter, accounts: frozenset[str] | None, rows_max: int | None) -> Picked:
        counts: dict[str, dict[str, int]] = {}
        found: list[object] = []
        for row in self:
            if wanted.status not in ("", row.status) or wanted.name not in ("", row.name):
                continue
            if accounts is not None and row.account not in accounts:
                continue
            by = counts.setdefault(row.dialect, {})
            by[row.status] = by.get(row.status, 0) + 1
            found.append(row)
        return Picked(counts, found if rows_max is None else found[-rows_max:])
