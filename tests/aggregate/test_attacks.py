"""Attacks by discovery, and each by its formula; that the mean fails where a rule holds."""

import math

import numpy as np
import pytest
import torch

from manyloom.aggregate import ATTACKS, attackers, filtered, screen
from manyloom.aggregate.attacks import flipped, hidden
from manyloom.core.errors import BadInput
from manyloom.core.seeds import name_id
from tests.aggregate.plain import make, reduce, updates

every = pytest.mark.parametrize("name", ATTACKS)
KEYS = np.arange(3, dtype=np.uint64) + 77


def slots(n, seed=0, dtype=torch.float32):
    return {"u": updates(n, 30, seed, dtype) + 0.5, "dc": updates(n, 4, seed + 1, dtype)}


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("honest, liars", [(9, 3), (1, 3), (0, 3), (9, 0), (2, 1)])
def test_shapes_types_and_inputs_stay(name, dtype, honest, liars):
    h, own = slots(honest, 1, dtype), slots(liars, 2, dtype)
    before = {k: v.clone() for k, v in {**own, "h": h["u"]}.items()}
    sent = ATTACKS[name](clients=0.2).send(h, own, KEYS[:liars])
    assert {k: (v.shape, v.dtype) for k, v in sent.items()} == {k: (v.shape, v.dtype) for k, v in own.items()}
    assert torch.equal(own["u"], before["u"]) and torch.equal(h["u"], before["h"])
    assert name in ("nan", "inf") or all(v.isfinite().all() for v in sent.values())
    sent["u"].add_(1)  # no view of anybody's message
    assert torch.equal(h["u"], before["h"])


@every
def test_an_attack_is_a_function_of_its_arguments(name):
    attack = ATTACKS[name](clients=3)
    a, b = (attack.send(slots(9, 1), slots(3, 2), KEYS) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) or name == "nan" for k in a)
    turned = attack.send({k: v.flip(0) for k, v in slots(9, 1).items()}, slots(3, 2), KEYS)
    torch.testing.assert_close(turned, a, equal_nan=True)
    keys = dict(attack.table)
    assert keys.pop("name") == name and ATTACKS[name](**keys).table == attack.table


def test_formulas():
    h, own = slots(16, 1), slots(4, 2)
    keys = np.arange(4, dtype=np.uint64)

    def send(name, **given):
        return ATTACKS[name](clients=4, **given).send(h, own, keys)["u"]

    mu, sigma = h["u"].mean(0), h["u"].std(0)
    assert torch.equal(send("sign-flip"), -own["u"]) and torch.equal(send("sign-flip", scale=3.0), -3 * own["u"])
    torch.testing.assert_close(send("ipm", scale=10), (-10 * mu).expand(4, -1))
    torch.testing.assert_close(send("alie", scale=1.5), (mu - 1.5 * sigma).expand(4, -1))
    torch.testing.assert_close(send("alie"), (mu - hidden(20, 4) * sigma).expand(4, -1))
    assert send("nan").isnan().all() and send("inf").isposinf().all()
    assert torch.equal(send("label-flip"), own["u"])


def test_gaussian_noise_is_each_attackers_own_and_has_its_deviation():
    own = {"u": torch.zeros(3, 20_000)}
    sent = ATTACKS["gaussian"](clients=3, scale=2.0).send(own, own, KEYS)["u"]
    assert sent.std(1) == pytest.approx([2, 2, 2], rel=0.03) and sent.mean(1).abs().max() < 0.06
    assert abs(float(torch.corrcoef(sent)[0, 1])) < 0.03
    alone = ATTACKS["gaussian"](clients=3, scale=2.0).send(own, {"u": own["u"][1:2]}, KEYS[1:2])["u"]
    assert torch.equal(alone[0], sent[1])  # whoever else attacks


def test_alies_z_is_as_published_and_always_finite():
    assert hidden(20, 4) == pytest.approx(0.157, abs=5e-4) and hidden(50, 10) == pytest.approx(0.253, abs=5e-4)
    assert all(math.isfinite(hidden(n, f)) and hidden(n, f) >= 0 for n in range(2, 40) for f in range(1, n))


def test_labels_are_flipped_in_the_data_and_only_by_label_flip():
    y = torch.tensor([0, 3, 9])
    for name, make_one in ATTACKS.items():
        got = make_one(clients=1).label(y, 10)
        assert got.tolist() == ([9, 6, 0] if name == "label-flip" else [0, 3, 9])
    assert torch.equal(flipped(flipped(y, 10), 10), y) and flipped(y.to(torch.uint8), 10).dtype == torch.uint8


def test_who_attacks_is_drawn_from_the_seed_by_client():
    ids = np.array([name_id(f"c{i}") for i in range(200)], np.uint64)
    who = attackers(0.2, ids, seed=1)
    assert len(who) == 40 and (np.diff(who) > 0).all() and np.array_equal(who, attackers(40, ids, seed=1))
    assert not np.array_equal(who, attackers(0.2, ids, seed=2))
    turn = np.random.default_rng(0).permutation(200)
    assert set(ids[who]) == set(ids[turn][attackers(0.2, ids[turn], seed=1)])  # the client, not its place
    assert len(attackers(1, ids, 0)) == 1 and len(attackers(1.0, ids, 0)) == 200 and not len(attackers(5, ids[:0], 0))
    often = np.bincount(np.concatenate([attackers(0.2, ids, s) for s in range(200)]), minlength=200)
    assert 15 < often.min() and often.max() < 70  # 40 expected
    for wrong in (0, -1, 1.5, "all"):
        with pytest.raises(BadInput):
            ATTACKS["nan"](clients=wrong)


@pytest.mark.parametrize("name", ["trimmed-mean", "multi-krum", "geometric-median", "krum"])
def test_ipm_turns_the_mean_around_and_not_the_rule(name):
    common = torch.randn(200, generator=torch.Generator().manual_seed(5))
    honest = {"u": common + 0.5 * updates(16, 200)}
    liars = ATTACKS["ipm"](clients=4, scale=10.0).send(honest, {"u": updates(4, 200)}, KEYS)
    x = torch.cat([liars["u"], honest["u"]])
    mu = honest["u"].mean(0)
    assert torch.dot(x.mean(0), mu) < 0  # above (n - f) / f = 4
    got, kept, _ = reduce(make(name, 4, "nnm"), x)
    assert torch.cosine_similarity(got, mu, dim=0) > 0.95 and filtered(kept).tolist()[:4] == [True] * 4


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_what_is_no_number_never_reaches_a_rule(name):
    h = slots(10)
    sent = ATTACKS[name](clients=2).send(h, slots(2, 5), KEYS[:2])
    rows = {k: torch.cat([sent[k], h[k]]) for k in h}
    assert list(screen(rows).why) == [0, 1]
    got, _, _ = reduce(make("median", 2), rows)
    torch.testing.assert_close(got, reduce(make("median", 0), h)[0])
