"""How long what is known of a grant holds."""

from __future__ import annotations

import pytest

from alcove import limits
from alcove.runs.deciding import Known
from alcove.runs.grant_queries import Standing
from alcove.runs.grants import Grant, freeze

NOW = 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("expires_us", "seconds"),
    [(0, limits.DECISION_S), (NOW + 3_600_000_000, limits.DECISION_S), (NOW + 500_000, 0.5), (NOW + 1, 0.000001)],
)
def test_what_is_known_holds_for_a_second_or_to_the_expiry(expires_us: int, seconds: float) -> None:
    body, _ = freeze(Grant(agent="a", resources={"tool": {"search": ("call",)}}, expires_us=expires_us))
    known = Known(_standing(body), 10.0)
    assert known.refusal is None
    assert known.until == pytest.approx(10.0 + seconds)


def test_what_has_expired_is_denied_and_so_is_what_somebody_above_lost() -> None:
    body, _ = freeze(Grant(agent="a", expires_us=NOW))
    assert _code(_standing(body)) == "expired"
    fine, _ = freeze(Grant(agent="a"))
    assert _code(_standing(fine)) is None
    assert _code(_standing(fine, broken=True)) == "revoked"
    assert _code(_standing(fine, status="lost")) == "finished"
    assert _code(_standing(fine, due_us=NOW)) == "finished", "not heard of in time, whether that was written or not"
    assert Known(_standing(fine, due_us=NOW + 250_000), 10.0).until == pytest.approx(10.25)


def _code(standing: Standing) -> str | None:
    refusal = Known(standing, 0.0).refusal
    return None if refusal is None else refusal.code


def _standing(body: str, *, broken: bool = False, status: str = "running", due_us: int = 0) -> Standing:
    return Standing(
        now=NOW,
        run_id="r",
        tenant="default",
        user_id="",
        session_id="",
        status=status,
        due_us=due_us,
        root_id="r",
        line=("r",),
        broken=broken,
        changes=(),
        body=body,
    )
