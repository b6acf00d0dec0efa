"""What is shipped for running it: alert rules, a systemd unit, an image definition."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from headwater import limits
from headwater.metrics import Snapshot
from headwater.view.metrics_page import Hub, render

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
OPERATING = (TOP / "docs" / "operating.md").read_text()
RULE = re.compile(
    r"^      - alert: (?P<name>\w+)\n"
    r"^        expr: (?P<expr>(?:>-\n(?:^          .+\n)+)|.+\n)"
    r"(?:^        for: \d+[smh]\n)?"
    r"^        labels: \{ severity: (?P<severity>critical|warning) \}\n"
    r"^        annotations:\n"
    r"^          summary: (?P<summary>[A-Z][^#\n]*\.)\n",
    re.MULTILINE,
)


def alerts() -> dict[str, str]:
    """The expressions by the rules' names; the file's shape is checked on the way."""
    head, _, rest = (DEPLOY / "alerts.yml").read_text().partition("    rules:\n")
    assert head.endswith("\ngroups:\n  - name: headwater\n")
    assert RULE.sub("", rest).strip() == "", "not a rule"
    return {match["name"]: match["expr"] for match in RULE.finditer(rest)}


def metrics() -> set[str]:
    page = render(workers={0: Snapshot(latency_buckets=[1], latency=[1])}, books=[], hub=Hub())
    return set(re.findall(r"^# TYPE (\w+)", page.decode(), re.MULTILINE))


@pytest.mark.parametrize("name", alerts())
def test_an_alert_uses_metrics_that_there_are(name: str) -> None:
    expression = alerts()[name]
    used = set(re.findall(r"\bheadwater_\w+", expression))
    assert used or 'up{job="headwater"}' in expression
    assert used - metrics() == set()
    assert expression.count("(") == expression.count(")")


def test_labels_that_alerts_choose_by_exist() -> None:
    text = "".join(alerts().values())
    assert set(re.findall(r'reason!?="(\w+)"', text)) <= {"rate_limit"}
    assert "rate_limit" in (TOP / "src/headwater/accept/counters.py").read_text()


def test_every_alert_is_explained_and_no_other() -> None:
    section = OPERATING.partition("## Alerts")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(Headwater\w+)`", section, re.MULTILINE)) == sorted(alerts())


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "headwater.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_gives_what_the_bounds_need_and_no_more() -> None:
    found = unit()
    assert int(found["LimitNOFILE"][0]) > 4 * limits.connections_max
    assert float(found["TimeoutStopSec"][0]) > 30
    assert found["KillMode"] == ["mixed"]
    for key, value in (
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("StateDirectory", "headwater"),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        ("Restart", "always"),
        ("StartLimitIntervalSec", "0"),
    ):
        assert found[key] == [value]
    assert "ReadWritePaths" not in found
    assert "@system-service" in found["SystemCallFilter"]
    assert "MemoryMax" in found


def test_systemd_takes_the_unit_for_safe(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    copy = tmp_path / "headwater.service"
    text = (DEPLOY / "headwater.service").read_text()
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert "headwater.service" not in verified.stderr, verified.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-300:]


def test_the_image_runs_as_nobody_in_particular_on_a_volume() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    final = lines[max(place for place, line in enumerate(lines) if line.startswith("FROM ")) :]
    text = "\n".join(final)
    assert "USER 10001" in text
    assert re.findall(r"^VOLUME (.+)$", text, re.MULTILINE) == ["/data"]
    assert "HEALTHCHECK" in text
    assert "/readyz" in text
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    whole = "\n".join(lines)
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", whole, re.MULTILINE):
        for name in path.split():
            assert (TOP / name).exists(), name
    assert "--require-hashes" in whole
