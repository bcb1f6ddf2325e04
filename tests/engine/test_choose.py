"""The choice of provider and K is a table."""

from __future__ import annotations

import pytest

from manyloom.core.errors import BadInput
from manyloom.engine.choose import Facts, base, bytes_of, choose, largest, per_client
from tests.engine.toys import Toy, algorithm, engine, task

LR, MLP, CNN = 7_850, 199_210, 1_663_370

TABLE = [  # d, cohort, more facts, what is asked -> provider, K, a word of the reason
    (LR, 100, {}, {}, ("vmap", 100, "faster")),
    (LR, 1000, {}, {}, ("vmap", 128, "faster")),
    (LR, 31, {}, {}, ("autograd", 1, "K = 31")),
    (MLP, 50, {}, {}, ("autograd", 1, "K = 10")),
    (LR, 100, {"state_rows": 2}, {}, ("vmap", 100, "faster")),
    (LR, 1000, {"state_rows": 4}, {}, ("vmap", 89, "faster")),
    (LR, 100, {"convolution": True}, {}, ("autograd", 1, "convolutions")),
    (CNN, 100, {"convolution": True}, {"name": "vectorised"}, ("vmap", 2, "groups")),
    (MLP, 50, {}, {"name": "vectorised"}, ("vmap", 10, "groups")),
    (MLP, 50, {}, {"name": "vectorised", "group": 7}, ("vmap", 7, "groups")),
    (LR, 100, {}, {"name": "sequential"}, ("autograd", 1, "one client at a time")),
    (LR, 100, {}, {"provider": "autograd"}, ("autograd", 1, 'provider = "autograd"')),
    (MLP, 50, {}, {"provider": "vmap"}, ("vmap", 10, 'provider = "vmap"')),
    (LR, 100, {"refused": {"vmap": "mixes"}}, {"name": "vectorised"}, ("autograd", 1, "mixes")),
    (LR, 100, {"refused": {"vmap": "mixes"}}, {"provider": "vmap"}, ("autograd", 1, "mixes")),
    (LR, 100, {}, {"group": 40}, ("vmap", 40, "faster")),
    (LR, 100, {}, {"group": 3}, ("autograd", 1, "K = 3")),
    (LR, 1000, {"budget": 58 << 20}, {}, ("vmap", 108, "faster")),
    (LR, 0, {}, {}, ("autograd", 1, "K = 1")),
]


@pytest.mark.parametrize(("d", "cohort", "more", "asked", "want"), TABLE)
def test_table(d: int, cohort: int, more: dict, asked: dict, want: tuple[str, int, str]) -> None:
    found = choose(Facts(d=d, batch=10, cohort=cohort, **more), **asked)
    assert (found.provider, found.group) == want[:2]
    (reason,) = found.reasons.values()
    assert want[2] in reason


def test_the_budget_holds_the_group() -> None:
    f = Facts(d=MLP, batch=10, cohort=500, state_rows=2, memory_rows=1, row_bytes=3144, activation_bytes=5000)
    k = largest(f)
    assert base(f) + k * per_client(f) <= f.budget < base(f) + (k + 1) * per_client(f)
    with pytest.raises(BadInput) as caught:
        largest(Facts(d=10**9, batch=1, cohort=1))
    assert caught.value.code == "memory" and caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["2", "2 XB", "", "-1 GiB", "GiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(BadInput):
        bytes_of(text)


def test_resume_uses_the_record() -> None:
    fed = Toy()
    first = engine(task(), algorithm(), fed, name="vectorised", group=5)
    again = engine(task(), algorithm(), fed, name="auto", recorded=first.record)  # by the rule it would be autograd
    assert (again.record["provider"], again.record["group"]) == ("vmap", 5)
    assert "changed" not in again.record
    other = engine(task(), algorithm(), fed, recorded={**first.record, "torch": "2.6.0", "capability": "AVX512"})
    assert other.record["provider"] == "vmap"
    assert other.record["changed"]["torch"][0] == "2.6.0"  # type: ignore[index]
    for key in ("provider", "group", "name", "device", "threads", "torch", "capability", "reasons"):
        assert key in first.record
