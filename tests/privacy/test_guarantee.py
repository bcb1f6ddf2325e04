"""A guarantee is whole or it is not there."""

import json
from dataclasses import replace

import pytest

from manyloom.core.errors import BadInput
from manyloom.privacy.accountants import Spent, epsilon, fixed, poisson
from manyloom.privacy.guarantee import READERS, WATCHERS, Facts, Guarantee, derive, planned, shown

FACTS = Facts(
    planned(poisson(1000, 0.1), 2.0, 0.5, 20), 1000, 1e-4, 1e-4, "client", "rdp", "zero-out",
    "rounded Gaussian, z = 2, C = 0.5", True, True, ("the server adds the noise",), ("column statistics",),
)  # fmt: skip


def test_two_adversaries_two_guarantees():
    main, other = derive(FACTS)
    assert main.against == READERS and other.against == WATCHERS
    assert main.epsilon == epsilon(FACTS.spent, 1e-4, "rdp", "zero-out") < other.epsilon
    assert "Poisson, q = 0.1" in main.sampling and "20 releases" in other.sampling
    assert main.uncovered == other.uncovered == ("column statistics",)
    assert any("take part" in a for a in main.assumes)


def test_json_has_every_field_and_the_others():
    body = json.loads(json.dumps(shown(derive(FACTS))))
    assert Guarantee.from_json(body) == derive(FACTS)[0]
    assert [Guarantee.from_json(o) for o in body["others"]] == [derive(FACTS)[1]]
    for name in set(body) - {"others"}:
        with pytest.raises(BadInput):
            Guarantee.from_json({k: v for k, v in body.items() if k != name})


@pytest.mark.parametrize("name", ["unit", "adjacency", "mechanism", "sampling", "accountant", "against"])
def test_no_field_is_optional(name):
    with pytest.raises(BadInput) as told:
        replace(derive(FACTS)[0], **{name: ""})
    assert told.value.code == "no-guarantee"


def test_without_a_secret_cohort_nothing_is_amplified():
    (only,) = derive(replace(FACTS, secret_cohort=False))
    assert only.against == WATCHERS and only.epsilon == derive(FACTS)[1].epsilon


def test_without_secret_noise_or_noise_there_is_none():
    assert derive(replace(FACTS, secret_noise=False)) == () and shown(()) is None
    assert derive(replace(FACTS, spent=(Spent(0.0, 1.0, poisson(1000, 0.1), 1),))) == ()


def test_a_fixed_cohort_is_replace_one():
    with pytest.raises(BadInput):
        derive(replace(FACTS, spent=planned(fixed(1000, 100), 2.0, 0.5, 2)))
    main, other = derive(replace(FACTS, spent=planned(fixed(1000, 100), 2.0, 0.5, 2), adjacency="replace-one"))
    assert "without replacement" in main.sampling and other.adjacency == "replace-one"


def test_participations_bound_the_unamplified_number():
    few, many = (derive(replace(FACTS, participations=n))[1] for n in (3, 100))
    assert few.epsilon < many.epsilon == derive(FACTS)[1].epsilon
    assert "3 releases" in few.sampling and any("3 times" in a for a in few.assumes)


def test_delta_is_checked_wherever_it_came_from():
    for changed in ({"delta": 1e-3}, {"left": 2e-4}):
        with pytest.raises(BadInput):
            derive(replace(FACTS, **changed))


def test_less_delta_is_left_more_epsilon():
    assert derive(replace(FACTS, left=5e-5))[0].epsilon > derive(FACTS)[0].epsilon


def test_text_says_everything():
    text = derive(FACTS)[0].text()
    for part in ("epsilon", "delta", "client, zero-out", "Gaussian", "Poisson", "RDP", READERS, "column statistics"):
        assert part in text
