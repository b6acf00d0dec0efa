"""In CI nothing is skipped: what a test needs is installed there, or the run fails. Servers begin
with the store of one first start (:attr:`Served.first_start`)."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

from tests.served import Served


@cache
def first_start() -> Path:
    """A data folder that a hub has been started on, once in a process of tests."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-first-start-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    account = '[accounts.any.nucleus]\napps = ["any"]'
    with Served(folder, account, command="load", anew=True) as once:
        return once.data


Served.first_start = staticmethod(first_start)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With HEADWATER_CI set, a skipped test is a failed one."""
    report = yield
    if os.environ.get("HEADWATER_CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"in CI nothing is skipped: {reason}"
    return report
