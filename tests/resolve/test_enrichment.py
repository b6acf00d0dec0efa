"""Enrichment as the loader calls it: what is added to which context, and what is left alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from headwater import limits
from headwater.accept.request import Request
from headwater.event import Decoded, Event
from headwater.resolve.enrichment import Enrichment
from tests.resolve.country_file import write_countries
from tests.resolve.test_device import GOOGLEBOT, IPHONE


def enriched(
    enrichment: Enrichment, *contexts: dict[str, Any], peer: str = "203.0.113.9"
) -> list[dict[str, Any]]:
    request = Request(dialect="nucleus", method="POST", target="/", peer=peer)
    events = [
        Event(index=index, kind="track", name="e", scope="", context=context)
        for index, context in enumerate(contexts)
    ]
    enrichment.enrich(request, Decoded(events=events))
    return [event.context for event in events]


@pytest.fixture
def enrichment(tmp_path: Path) -> Enrichment:
    path = write_countries(tmp_path / "c.mmdb", {"203.0.113.0/24": "AT", "198.51.100.0/24": "CH"})
    made = Enrichment(tmp_path)
    made.use_country_file(str(path))
    return made


def test_each_event_gets_device_bot_and_country(enrichment: Enrichment) -> None:
    phone, bot, nothing = enriched(
        enrichment, {"user_agent": IPHONE}, {"user_agent": GOOGLEBOT}, {}
    )
    assert (phone["device"]["kind"], phone["bot"], phone["country"]) == ("mobile", False, "AT")
    assert (bot["device"]["kind"], bot["bot"], bot["country"]) == ("bot", True, "AT")
    assert nothing == {"bot": False, "country": "AT"}


@pytest.mark.parametrize("own", [{"device": "mine"}, {"bot": "no"}, {"country": {"code": 1}}])
def test_what_the_client_sent_under_these_names_stays(
    enrichment: Enrichment, own: dict[str, Any]
) -> None:
    (context,) = enriched(enrichment, {"user_agent": GOOGLEBOT, **own})
    assert context == {**context, **own}
    assert {"device", "bot", "country"} <= set(context)


def test_an_address_and_agent_of_the_event_itself_count_before_those_of_the_request(
    enrichment: Enrichment,
) -> None:
    (context,) = enriched(enrichment, {"ip": "198.51.100.1", "user_agent": IPHONE})
    assert context["country"] == "CH"


@pytest.mark.parametrize("odd", [None, 7, True, {"a": 1}, [IPHONE]])
def test_values_of_any_kind_are_let_be(enrichment: Enrichment, odd: Any) -> None:
    context, phone = enriched(enrichment, {"user_agent": odd, "ip": odd}, {"user_agent": IPHONE})
    assert context == {"user_agent": odd, "ip": odd, "bot": False}
    assert phone["device"]["os"] == "iOS"


def test_without_an_address_or_a_file_there_is_no_country(enrichment: Enrichment) -> None:
    assert "country" not in enriched(enrichment, {}, peer="")[0]
    enrichment.use_country_file("")
    assert "country" not in enriched(enrichment, {})[0]
    assert "country" not in enriched(Enrichment(), {})[0]


def test_equal_requests_make_equal_contexts(enrichment: Enrichment) -> None:
    """The store parses equal contexts once."""
    one, two = enriched(
        enrichment, {"user_agent": IPHONE}, {"user_agent": IPHONE[:20] + IPHONE[20:]}
    )
    assert one == two
    assert list(one) == list(two)


def test_a_long_agent_is_read_up_to_the_bound(enrichment: Enrichment) -> None:
    long = IPHONE + " " * limits.agent_chars_max
    (context,) = enriched(enrichment, {"user_agent": long + " Googlebot/2.1"})
    assert (context["device"]["os"], context["bot"]) == ("iOS", False)


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_put_in_force(
    enrichment: Enrichment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.mmdb"
    write_countries(path, {"203.0.113.0/24": "IT"})
    assert enriched(enrichment, {})[0]["country"] == "AT", "until told"
    enrichment.use_country_file(str(path))
    assert enriched(enrichment, {})[0]["country"] == "IT"
    path.write_text("gone wrong")
    with caplog.at_level(logging.ERROR):
        enrichment.use_country_file(str(path))
    assert enriched(enrichment, {})[0]["country"] == "IT"
    assert "the old one stays" in caplog.text
    fresh = Enrichment(tmp_path)
    fresh.use_country_file(str(path))
    assert "country" not in enriched(fresh, {})[0]
    assert "no country is known" in caplog.text
