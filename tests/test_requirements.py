"""What is missing skips tests on a developer's machine, and fails them in CI."""

from __future__ import annotations

import pytest

from tests.support import requirements


def test_what_is_missing_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_EDGE_REQUIRE", "adbd, benchmark_model")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        requirements.missing("chromium", "no browser")


def test_what_is_missing_but_required_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_EDGE_REQUIRE", "adbd,chromium")
    monkeypatch.setattr(requirements.shutil, "which", lambda _: None)
    with pytest.raises(pytest.fail.Exception, match=r"chromium is required \(NAS_EDGE_REQUIRE\) but missing: needs"):
        requirements.check("chromium")


def test_a_requirement_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_EDGE_REQUIRE", "adbd,chrome")
    with pytest.raises(pytest.UsageError, match=r"supported: adbd, .*; received chrome"):
        requirements.required()
