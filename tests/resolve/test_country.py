"""Countries of addresses, from files as operators have them: right, wrong, changed, overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from headwater.errors import ConfigError
from headwater.resolve.country import Countries, check, version_of
from tests.resolve.country_file import write_countries, write_records


@pytest.fixture
def countries(tmp_path: Path) -> Countries:
    path = write_countries(
        tmp_path / "c.mmdb", {"203.0.113.0/24": "AT", "2001:db8::/32": "DE", "198.51.100.0/25": "x"}
    )
    return Countries(path, tmp_path)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("203.0.113.77", "AT"),
        ("203.0.113.0", "AT"),  # as `ip = "truncate"` leaves it
        ("2001:db8:1:2::3", "DE"),
        ("2001:db8:1::", "DE"),
        ("192.0.2.1", ""),
        ("198.51.100.1", ""),  # a code that is none
        ("", ""),
        ("no address", ""),
        ("203.0.113.77:80", ""),
        ("fe80::1%eth0", ""),
    ],
)
def test_an_address_has_the_country_of_its_network_or_none(
    countries: Countries, address: str, code: str
) -> None:
    assert countries.of(address) == code


def test_an_ipv6_address_in_a_file_of_ipv4_has_none(tmp_path: Path) -> None:
    writer = MMDBWriter(4, "Test-Country")
    writer.insert_network(IPSet(["203.0.113.0/24"]), {"country": {"iso_code": "AT"}})
    writer.to_db_file(str(tmp_path / "c.mmdb"))
    countries = Countries(tmp_path / "c.mmdb", tmp_path)
    assert (countries.of("203.0.113.1"), countries.of("2001:db8::1")) == ("AT", "")


def test_a_file_overwritten_in_place_does_no_harm_until_it_is_read_again(tmp_path: Path) -> None:
    """Truncating a file that is mapped ends the process that reads the map."""
    path = write_countries(tmp_path / "c.mmdb", {"203.0.113.0/24": "AT"})
    countries = Countries(path, tmp_path)
    path.write_bytes(b"")
    assert countries.of("203.0.113.1") == "AT"
    other = write_countries(tmp_path / "other.mmdb", {"203.0.113.0/24": "CH"})
    shutil.copyfile(other, path)
    assert version_of(path) != countries.version
    assert Countries(path, tmp_path).of("203.0.113.1") == "CH"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["c.mmdb", "other.mmdb"], "no copies"


def test_what_is_no_country_file_is_refused_with_reason_and_remedy(tmp_path: Path) -> None:
    text = tmp_path / "text.mmdb"
    text.write_text("not a database")
    networks = write_records(
        tmp_path / "asn.mmdb", {"203.0.113.0/24": {"asn": 1}, "192.0.2.0/24": "AT"}, kind="ASN"
    )
    for path, said in (
        (tmp_path / "none.mmdb", "No such file"),
        (tmp_path, "is"),
        (text, "is no MaxMind database"),
        (networks, "is a ASN database, without countries"),
    ):
        for attempt in (check, lambda path: Countries(path, tmp_path)):
            with pytest.raises(ConfigError) as raised:
                attempt(path)
            assert str(path) in raised.value.message
            assert said in raised.value.message
            assert "GeoLite2-Country.mmdb" in raised.value.remedy
