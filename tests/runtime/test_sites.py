"""The clients' halves of protected sums in a simulation: integers, what waits, who each is, what is forgotten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom.core.exchange import Ask, Fold, Lost, Reply
from manyloom.privacy.source import Secret
from manyloom.runtime.sites import Sites, protect, rounding
from manyloom.secure import Params, encode, repeatable, wire
from manyloom.secure.channel import DIMS, PARAMS, SUM
from manyloom.secure.client import START, WAITING
from manyloom.secure.params import Control, number_of
from manyloom.secure.settings import Secure

WHO = np.array([3, 5, 8])
NUMBERS = (Control("weight", 20, 0.0, 20.0), Control("cut", 1, 0.0, 1.0), Control("loss", 2**10, 0.0, 32.0))
PLAIN = Params("active", 3, 9, 0, 8.0, 2**12, weights="plain", control=NUMBERS)


def asked(params: Params = PLAIN, verb="train", round=1, names=(SUM,)) -> Ask:
    body = {"theta": torch.ones(2), PARAMS: wire.pack(params.to_bytes())}
    return Ask(WHO, verb, body, round=round, fold=Fold(names))


def protected(params: Params, u: torch.Tensor, samples=(10, 20, 40), loss=(1.0, 2.0, 3.0), **more):
    source = more.pop("source", lambda c: repeatable(1, 1, c))
    return protect(asked(params), WHO, {"u": u, **more}, torch.tensor(samples), torch.tensor(loss), source)


# ---- integers


def test_each_row_is_encoded_by_the_asks_parameters():
    """[count, weight, cut, loss, vector]: w = n/cap at most 1, and the vector is SR(w x S)."""
    u = torch.tensor([[1.0, -2.0], [0.5, 9.0], [0.25, 0.0]])
    words = protected(PLAIN, u).words[SUM]
    assert words.dtype == torch.int32 and words.shape == (3, 6)
    assert words[:, :2].tolist() == [[1, 10], [1, 20], [1, 20]] and words[:, 2].tolist() == [-1, 1, -1]
    assert words[:, 3].tolist() == [round((2 * x / 32 - 1) * 2**10) for x in (1, 2, 3)]
    assert words[:, 4:].tolist() == [[2048, -4096], [2048, 8 * 4096], [1024, 0]]
    for row, client, n, mean in zip(u, WHO.tolist(), (0.5, 1.0, 1.0), (1.0, 2.0, 3.0)):
        own = encode(row.double().numpy(), PLAIN, repeatable(1, 1, client), weight=n, control={"loss": mean}).words
        assert np.array_equal(words[WHO.tolist().index(client)].numpy().view(np.uint32), own)


def test_all_slots_make_one_vector_in_their_order_and_are_clipped_together():
    claim = Params("plain", 1, 9, 0, 1.0, 2**14, noise="central", z=1.0)
    rows = {"u": torch.full((3, 2), 30.0), "dc": torch.full((3, 2), 40.0)}
    words = protected(claim, rows["u"], dc=rows["dc"]).words[SUM].double()[:, 1:]
    assert words.shape == (3, 4)
    norms = words.norm(dim=1)
    assert (norms <= 2**14).all() and (norms > 0.99 * 2**14).all()  # of both, not of each
    assert torch.allclose(words[:, 0] / words[:, 2], torch.tensor(0.75, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("params", [PLAIN, Params("plain", 1, 9, 0, 1.0, 2**14, noise="central", z=1.0)])
def test_an_update_that_is_no_number_is_left_out_and_named(params, bad):
    u = torch.ones(3, 2)
    u[1, 1] = bad
    made = protected(params, u)
    assert made.kept.tolist() == [3, 8] and made.words[SUM].shape[0] == 2
    assert [(x.client, x.reason) for x in made.lost] == [(5, "not-finite")]
    none = protected(params, torch.full((3, 2), bad))
    assert len(none.kept) == 0 and len(none.lost) == 3 and none.words[SUM].shape == (0, 0)


def test_rounding_is_secret_under_a_claim_and_from_the_seed_without():
    ids = [70, 71, 72, 73, 74, 75, 76, 77, 78]
    u = torch.full((3, 500), 0.1)
    one, two = (protected(PLAIN, u, source=rounding(1, 2, ids, False)).words[SUM] for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one[1], one[2])  # both weigh 1: they differ in rounding alone
    for seed, r in ((2, 2), (1, 3)):
        assert not torch.equal(one, protected(PLAIN, u, source=rounding(seed, r, ids, False)).words[SUM])
    moved = [*ids[:5], 99, *ids[6:]]  # a client is known by its stable id, not by its place
    other = protected(PLAIN, u, source=rounding(1, 2, moved, False)).words[SUM]
    assert torch.equal(one[2], other[2]) and not torch.equal(one[1], other[1])
    assert isinstance(rounding(1, 2, ids, True)(3), Secret)
    hidden = [protected(PLAIN, u, source=rounding(1, 2, ids, True)).words[SUM] for _ in range(2)]
    assert not torch.equal(*hidden)


def test_the_rounding_is_unbiased():
    words = protected(PLAIN, torch.full((3, 40_000), 0.1), samples=(20, 20, 20)).words[SUM][:, 4:].double()
    x = 0.1 * 2**12
    sd = ((x % 1) * (1 - x % 1) / words.numel()) ** 0.5
    assert set(words.unique().tolist()) == {409.0, 410.0} and abs(float(words.mean()) - x) < 5 * sd


# ---- who each is


@pytest.mark.parametrize("fidelity", ["full", "ideal"])
def test_the_roster_is_ascending_and_names_everybody(fidelity):
    made = [Sites(Secure(fidelity=fidelity), "job", "run", np.arange(12)) for _ in range(2)]
    for sites in made:
        assert len(set(sites.roster)) == 12 and list(sites.roster) == sorted(sites.roster)
        assert all(len(k) == 32 for k in sites.roster)
    assert (made[0].roster == made[1].roster) == (fidelity == "ideal")  # fresh keys, from no seed
    assert Sites(Secure(mode="semi", fidelity=fidelity), "job", "run", np.arange(3)).roster is None


# ---- what waits


def held(**table) -> tuple[Sites, Reply]:
    sites = Sites(Secure(**table), "job", "run", np.arange(9))
    words = protected(PLAIN, torch.randn(3, 4)).words
    return sites, sites.hold(asked(), WHO, words)


def stage(sites: Sites, number: int, at: int = 0, attempt: int = 0, params: Params | None = None):
    p = replace(params or PLAIN, d=4)
    body = {"run": wire.pack(b"run"), "params": wire.pack(p.to_bytes())} if at == 0 else {}
    return sites.answer(
        Ask(WHO, wire.VERBS[at], body | {"at": wire.numbers([number, attempt])}, round=number, attempt=attempt)
    )


def test_of_an_update_that_waits_only_the_shape_is_told():
    sites, reply = held()
    assert set(reply.body) == {DIMS + SUM} and reply.body[DIMS + SUM].tolist() == [[8]] * 3
    assert reply.clients.tolist() == WHO.tolist() and reply.sent == 24
    rows = {"a": torch.ones(3, 2, 5), "b": torch.ones(3)}
    params = Params("semi", 3, 9, 0, 1.0, 2**16, weights="exact", kappa=40)
    told = sites.hold(asked(params, "evaluate", names=("a", "b")), WHO, rows).body
    assert told[DIMS + "a"].tolist() == [[2, 5]] * 3 and told[DIMS + "b"].shape == (3, 0)


def test_what_may_be_saved_of_clients_is_what_they_answered_and_no_secret():
    sites, _ = held()
    assert all(isinstance(r, Reply) for r in stage(sites, number_of(1, "train")))
    assert set(sites.log.snapshot()) == {"clients", *START}
    secret = [t for kept in sites._secret.values() for t in kept.values()]  # pyright: ignore[reportPrivateUsage]
    saved = b"".join(t.numpy().tobytes() for t in sites.log.snapshot().values())
    assert any(WAITING in kept for kept in sites._secret.values())  # pyright: ignore[reportPrivateUsage]
    assert not any(t.numpy().tobytes() in saved for t in secret if t.numel() * t.element_size() >= 32 and t.any())


def test_forgotten_is_overwritten():
    sites, _ = held()
    stage(sites, number_of(1, "train"))
    secret = [t for kept in sites._secret.values() for n, t in kept.items() if n in (WAITING, "secure.keys")]  # pyright: ignore[reportPrivateUsage]
    assert len(secret) == 6 and all(t.any() for t in secret)
    sites.forget()
    assert not any(t.any() for t in secret) and not sites._secret  # pyright: ignore[reportPrivateUsage]


def test_another_sum_overwrites_what_an_earlier_one_left_waiting():
    sites, _ = held()
    left = [kept[WAITING] for kept in sites._secret.values()]  # pyright: ignore[reportPrivateUsage]
    sites.hold(asked(round=2), WHO, protected(PLAIN, torch.randn(3, 4)).words)
    assert not any(t.any() for t in left)
    kept = [kept[WAITING] for kept in sites._secret.values()]  # pyright: ignore[reportPrivateUsage]
    sites.hold(
        asked(round=2), np.array([1]), protected(PLAIN, torch.randn(3, 4)).words
    )  # the next group of the same ask
    assert all(t.any() for t in kept) and len(sites._secret) == 4  # pyright: ignore[reportPrivateUsage]


def test_clients_refuse_what_is_not_their_sum():
    number = number_of(1, "train")
    for params, why in (
        (replace(PLAIN, n_min=2), "policy"),
        (replace(PLAIN, mode="plain"), "policy"),
        (replace(PLAIN, gamma="0.01"), "policy"),
    ):
        sites, _ = held()
        told = stage(sites, number, params=params)
        assert all(isinstance(x, Lost) and x.reason == "refused" and why in x.text for x in told), params
    sites, _ = held()
    assert all("is not what comes next" in x.text for x in stage(sites, number, at=2) if isinstance(x, Lost))
    assert all(isinstance(x, Reply) for x in stage(sites, number))
    assert all("two at most" in x.text for x in stage(sites, number, attempt=2))
