"""In continuous integration, a test that is skipped although it could run is a failure.

What a test needs can be installed there, and a test that nobody runs protects nothing. Only a reason that begins with
``unavailable:`` is let through: it names what no installation brings, such as data that may not be shared.
"""

import os

import pytest

UNAVAILABLE = "unavailable: "


def _fail_if_avoidable(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    _, _, message = report.longrepr
    reason = message.removeprefix("Skipped: ")
    if not reason.startswith(UNAVAILABLE):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped in continuous integration, where it has to run: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport():
    report = yield
    _fail_if_avoidable(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report():
    report = yield
    _fail_if_avoidable(report)
    return report
