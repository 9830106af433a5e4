from __future__ import annotations

import pytest

from workers.sandbox.docker import engine_findings

HEALTHY = {
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SwapLimit": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
}


def codes(version: str, **info: object) -> list[str]:
    return [finding.code for finding in engine_findings({"Version": version}, HEALTHY | info)]


@pytest.mark.parametrize("version", ["20.10.10", "20.10.24+dfsg1", "28.5.1", "29.0.0-rc.1"])
def test_a_healthy_engine_has_no_findings(version):
    assert codes(version) == []


@pytest.mark.parametrize("version", ["19.3.15", "20.10.9", "1.13.1", "", "unknown"])
def test_an_old_or_unknown_engine_is_an_error(version):
    assert codes(version) == ["engine_too_old"]


@pytest.mark.parametrize("limit", ["MemoryLimit", "PidsLimit", "CpuCfsQuota"])
def test_a_limit_that_is_not_enforced_is_an_error(limit):
    assert codes("28.5.1", **{limit: False}) == ["limit_not_enforced"]


@pytest.mark.parametrize(
    "options", [None, [], ["name=userns"], ["name=seccomp,profile=unconfined"]]
)
def test_a_missing_system_call_filter_is_an_error(options):
    assert codes("28.5.1", SecurityOptions=options) == ["seccomp_missing"]


def test_swap_without_a_limit_is_a_warning():
    (finding,) = engine_findings({"Version": "28.5.1"}, HEALTHY | {"SwapLimit": False})
    assert (finding.code, finding.is_error) == ("swap_not_limited", False)
