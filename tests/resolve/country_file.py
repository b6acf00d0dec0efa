"""Small country files in MaxMind's format, made by a writer that is not the reader's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet


def write_records(path: Path, records: Mapping[str, Any], *, kind: str = "Test-Country") -> Path:
    """A file of networks (CIDR) and their records."""
    writer = MMDBWriter(6, kind, ipv4_compatible=True)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    fresh = path.with_suffix(".new")
    writer.to_db_file(str(fresh))
    fresh.replace(path)
    return path


def write_countries(path: Path, countries: Mapping[str, str]) -> Path:
    """A file of networks and their country codes, as GeoLite2-Country has them."""
    return write_records(
        path,
        {
            network: {"country": {"iso_code": code, "names": {"en": f"the land of {code}"}}}
            for network, code in countries.items()
        },
    )
