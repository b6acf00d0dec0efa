"""The country of an address, from a MaxMind DB file (GeoLite2, GeoIP2, DB-IP: Country or City).

The file is read through a memory map, by a copy of it that has no name: a file that is overwritten
in place while it is mapped would end the process (SIGBUS), and operators do that with `cp`.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb

from headwater import limits
from headwater.errors import ConfigError

log = logging.getLogger("headwater.resolve")

_CODE = re.compile(r"[A-Z]{2}")
#: Networks that are looked at to see whether a file knows countries at all.
_NETWORKS_TRIED = 1_000
_REMEDY = "give a Country or City database in MaxMind's format, as GeoLite2-Country.mmdb"

#: By which a changed file is told: path, modification time, size, inode.
Version = tuple[str, int, int, int]


def check(path: Path) -> None:
    """Raises ConfigError for a file that is no country database."""
    _opened(path, path).close()


def version_of(path: Path) -> Version:
    """What the file is now. Raises ConfigError."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


class Countries:
    """One version of a country file. `of(address)` is the ISO 3166-1 code, "" for none; the last
    addresses asked for are remembered. Any thread."""

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        """Open a copy of the file, which is made in `scratch`. Raises ConfigError."""
        self.version = version_of(path)
        try:
            with tempfile.NamedTemporaryFile(dir=scratch, suffix=".mmdb") as copy:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, copy)
                copy.flush()
                self._reader = _opened(Path(copy.name), path)
        except OSError as error:
            raise _unreadable(path, error) from error
        self._told = False
        self.of = lru_cache(maxsize=limits.addresses_remembered_max)(self._find)

    def _find(self, address: str) -> str:
        try:
            return _code(self._reader.get(address))
        except ValueError:  # no address, or an IPv6 one in a file of IPv4
            return ""
        except maxminddb.InvalidDatabaseError as error:
            if not self._told:
                self._told = True
                log.error("%s is damaged: %s", self.version[0], error)
            return ""


def _opened(file: Path, path: Path) -> maxminddb.Reader:
    """The database in `file`, which is spoken of as `path`. Raises ConfigError."""
    try:
        reader = maxminddb.open_database(os.fspath(file))
        first = itertools.islice(reader, _NETWORKS_TRIED)
        if any(_code(record) for _, record in first):
            return reader
        kind = reader.metadata().database_type
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, maxminddb.InvalidDatabaseError) as error:
        raise ConfigError(f'"{path}" is no MaxMind database', remedy=_REMEDY) from error
    reader.close()
    raise ConfigError(f'"{path}" is a {kind} database, without countries', remedy=_REMEDY)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f'"{path}" cannot be read: {error.strerror}', remedy=_REMEDY)


def _code(record: Any) -> str:
    country = record.get("country") if isinstance(record, dict) else None
    code = country.get("iso_code") if isinstance(country, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""
