"""What went wrong elsewhere: a test an item of privacy.md §10.1; those of §11 are in `test_sketch.py`.

Each states the item, keeps the naive code beside ours where it is short, and asserts what that code does wrong: so a
test that ours passes by accident would show.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.privacy import adaptive
from manyloom.privacy.accountants import Spent, default_adjacency, epsilon, everyone, exact, fixed, poisson
from manyloom.privacy.calibration import noise_for
from manyloom.privacy.guarantee import Facts, Guarantee, derive, planned, shown
from manyloom.privacy.ledger import Claim, Entry, Ledger
from manyloom.privacy.mechanisms import clipped, decode, encode, noised
from manyloom.privacy.source import Injected, Secret, counter

FACTS = Facts(
    planned(poisson(1000, 0.1), 2.0, 0.5, 20), 1000, 1e-4, 1e-4, "client", "pld", "zero-out",
    "rounded Gaussian, z = 2, C = 0.5", True, True, (), (),
)  # fmt: skip


def classic(eps, delta):
    """The naive sigma, of sensitivity 1: sqrt(2 ln(1.25/delta)) / eps."""
    return math.sqrt(2 * math.log(1.25 / delta)) / eps


def test_10_1_1_adaptive_clip_with_the_clipped_fraction_and_the_same_sign_runs_away():
    """Clipped fraction, minus sign: C_0 = .9 ran to 0 and C_0 = 1.1 to infinity, with true norms about 1."""
    norms = np.random.default_rng(0).normal(1.0, 0.1, 500)

    def naive(clip):
        return clip * math.exp(-0.2 * (float((norms > clip).mean()) - 0.5))

    def ours(clip):
        bits = sum(adaptive.bit(float(n), clip) for n in norms)
        return adaptive.next_clip(clip, adaptive.fraction(bits, len(norms)))

    ends = {}
    for step in (naive, ours):
        for start in (0.9, 1.1):
            clip = start
            for _ in range(60):
                clip = step(clip)
            ends[step.__name__, start] = clip
    assert ends["naive", 0.9] < 0.01 and ends["naive", 1.1] > 100
    assert ends["ours", 0.9] == pytest.approx(1.0, abs=0.02) and ends["ours", 1.1] == pytest.approx(1.0, abs=0.02)


def test_10_1_2_noise_of_a_round_uses_the_clip_of_that_round():
    """Drawn with the updated C, the noise does not match what the round's clip let through."""
    z, scale, n, clip = 1.0, 2**12, 100.0, 2.0
    following = adaptive.next_clip(clip, 1.0)  # everybody was below: the clip shrinks by a tenth
    released = decode(noised(np.zeros(200_000, np.int64), z * scale), clip, scale, n)
    assert released.std() * n / clip == pytest.approx(z, rel=0.01)
    naive = decode(noised(np.zeros(200_000, np.int64), z * scale), following, scale, n)
    assert naive.std() * n / clip == pytest.approx(z * following / clip, rel=0.01) and following < 0.91 * clip
    # nor can it be recorded as if it were: a record's z is its own sigma over its own clip
    honest, short = Spent(z * clip, clip, everyone(100)), Spent(z * following, clip, everyone(100))
    assert short.z == pytest.approx(following / clip)
    assert epsilon([short], 1e-5, "pld", "zero-out") > 1.1 * epsilon([honest], 1e-5, "pld", "zero-out")


def test_10_1_3_weights_by_examples_are_refused_under_a_claim():
    """A client with 1000 of 1009 examples moved the mean by 0.991 C, with noise for 0.1 C."""
    clip, examples = 1.0, [1000, *[1] * 9]
    direction = np.array([1.0, 0.0])
    naive = examples[0] * clipped(5 * direction, clip)[0] / sum(examples)
    assert np.linalg.norm(naive) == pytest.approx(0.991, abs=1e-3)
    with pytest.raises(BadInput) as told:
        encode(5 * direction, clip, 2**12, Secret(), weight=examples[0])
    assert told.value.code == "weight-above-one" and "uniform" in (told.value.mend or "")
    # the fixed denominator: nobody moves the mean by more than C/n, whatever the weights of the others
    for weight in (1.0, 0.3):
        alone = decode(encode(5 * direction, clip, 2**12, Secret(), weight).q, clip, 2**12, 10.0)
        assert np.linalg.norm(alone) <= clip / 10


@pytest.mark.parametrize("accountant, adjacency", [("pld", "zero-out"), ("pld", "replace-one"), ("rdp", "zero-out")])
def test_10_1_4_a_cohort_of_fixed_size_is_not_accounted_as_poisson(accountant, adjacency, tmp_path):
    """The default of most frameworks: 6 to 15 times too small an epsilon on paper."""
    taken = Spent(1.0, 1.0, fixed(10_000, 100), 1000)
    naive = epsilon([Spent(1.0, 1.0, poisson(10_000, 0.01), 1000)], 1e-5, "pld", "zero-out")
    assert epsilon([taken], 1e-5, "rdp", default_adjacency(taken.sampling)) > 11 * naive
    with pytest.raises(BadInput) as told:
        epsilon([taken], 1e-5, accountant, adjacency)
    assert told.value.code == "accountant-invalid" and told.value.mend
    # nor is it written down
    ledger = Ledger.open(tmp_path / "l.jsonl", Claim(1e-5, accountant, adjacency, "client", "job"))
    with pytest.raises(BadInput):
        ledger.record(Entry(1, 0, "update", 1.0, 1.0, taken.sampling, 1024, "m", "n"))
    assert ledger.entries == ()


def test_10_1_5_sampling_without_replacement_takes_half_the_multiplier():
    """Raw z in the library's event: 3.576 instead of 20.987."""
    import dp_accounting as library
    from dp_accounting import rdp

    def naive(z):
        accountant = rdp.RdpAccountant(neighboring_relation=library.NeighboringRelation.REPLACE_ONE)
        event = library.SampledWithoutReplacementDpEvent(10_000, 100, library.GaussianDpEvent(z))
        return accountant.compose(event, 1000).get_epsilon(1e-5)

    assert naive(1.0) == pytest.approx(3.5761, abs=1e-4)
    ours = epsilon([Spent(1.0, 1.0, fixed(10_000, 100), 1000)], 1e-5, "rdp", "replace-one")
    assert ours == pytest.approx(20.9871, abs=1e-4) and ours == pytest.approx(naive(0.5), rel=1e-9)


def test_10_1_6_an_update_of_norm_zero_divides_nothing():
    """`clip / norm`: ZeroDivisionError in pure floats, nan in arrays."""
    zero = np.zeros(7, np.float32)
    with pytest.raises(ZeroDivisionError):
        min(1.0, 1.0 / float(np.linalg.norm(zero)))
    out, size = clipped(zero, 1.0)
    e = encode(zero, 1.0, 256, Secret())
    assert size == 0 and not out.any() and e.finite and not e.q.any() and not math.isnan(e.norm)
    assert encode(np.zeros(0), 1.0, 256, Secret()).q.shape == (0,)


def test_10_1_7_and_11_11_the_classic_gaussian_without_composition():
    """It wastes 30 % at eps = 1, claims too little from eps = 8.42 up, and adds nothing up over rounds."""
    delta = 1e-5
    assert classic(1, delta) / noise_for(1.0, 1, everyone(10), delta, "pld") == pytest.approx(1.30, abs=0.01)
    for claimed, too_little in ((8.41, False), (8.43, True), (20.0, True)):
        assert (exact(classic(claimed, delta), delta) > claimed) is too_little
        ours = noise_for(claimed, 1, everyone(10), delta, "pld")
        assert exact(ours, delta) <= claimed < exact(ours - 1e-4, delta)
    assert exact(classic(8, 0.05), 0.110) == pytest.approx(8.0, abs=0.05)  # at delta .05 its true delta is .110
    # rounds: each claims 1, together they are 10.4 after a hundred, and 25.4 where a client may be replaced
    hundred = Spent(classic(1, delta), 1.0, everyone(10), 100)
    assert epsilon([hundred], delta, "pld", "zero-out") == pytest.approx(10.4, abs=0.05)
    assert epsilon([hundred], delta, "pld", "replace-one") == pytest.approx(25.4, abs=0.05)


def test_10_1_8_a_filter_without_noise_is_no_privacy():
    """A percentile filter shrinks and shares: two neighbours give two different answers, always."""

    def naive(update, percentile=90):
        return np.where(np.abs(update) >= np.percentile(np.abs(update), percentile), update, 0.0)

    base = np.linspace(-1.0, 1.0, 50)
    neighbour = base.copy()
    neighbour[-1] += 0.01
    assert (naive(base) == naive(base)).all() and (naive(base) != naive(neighbour)).any()
    # without noise there is no epsilon and no guarantee, whatever else was done to the update
    silent = Spent(0.0, 1.0, poisson(1000, 0.1), 1)
    assert epsilon([silent], 1e-5, "pld", "zero-out") == math.inf
    assert derive(replace(FACTS, spent=(silent,))) == () and shown(()) is None


def test_10_1_9_and_11_11_no_epsilon_without_what_gives_it_a_meaning():
    """A number alone, or for one clipping mode only, cannot be used: every field is there, or nothing is."""
    whole = derive(FACTS)[0]
    body = whole.to_json()
    assert all(body[k] for k in ("delta", "unit", "adjacency", "mechanism", "sampling", "accountant", "against"))
    for name in body:
        with pytest.raises(BadInput) as told:
            Guarantee.from_json({k: v for k, v in body.items() if k != name})
        assert told.value.code == "no-guarantee"
    for unfinished in ({"epsilon": math.nan}, {"epsilon": math.inf}, {"delta": 0.0}, {"adjacency": ""}):
        with pytest.raises(BadInput):
            replace(whole, **unfinished)
    # fixed and adaptive clip alike: an equal pair (update, bit) costs what the update alone would
    z, bit = 2.0, adaptive.bit_noise(100)
    pair = [Spent(adaptive.split(z, bit), 1.0, everyone(1000)), Spent(2 * bit, 1.0, everyone(1000))]
    assert epsilon(pair, 1e-4, "pld", "zero-out") == pytest.approx(exact(z, 1e-4), rel=1e-9)


def test_10_1_10_and_11_2_11_6_no_seed_is_near_the_noise():
    """Seeded noise is known to whoever knows the seed; drawing it moves no global generator either."""
    zero = np.zeros(64, np.int64)

    def naive():
        torch.manual_seed(7)
        np.random.seed(7)
        return torch.randn(64).numpy() + np.random.normal(size=64)

    assert (naive() == naive()).all()  # predictable, and the same for two clients

    def ours():
        torch.manual_seed(7)
        np.random.seed(7)
        return noised(zero, 1000.0)

    assert (ours() != ours()).any() and not np.array_equal(noised(zero, 1000.0), noised(zero, 1000.0))
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    noised(zero, 1000.0)
    encode(np.ones(64), 1.0, 1024, Secret())
    assert torch.equal(torch.random.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    # a stream that can be repeated is refused where it counts, and bears no guarantee where tests use it
    known = Injected(lambda n: counter(b"sixteen bytes ok")(bytes(n)))
    with pytest.raises(BadInput) as told:
        noised(zero, 1000.0, known)
    assert told.value.code == "noise-not-secret" and derive(replace(FACTS, secret_noise=False)) == ()


def test_10_1_10_no_two_releases_share_their_noise():
    """One noise vector for all, or for every round, cancels in a difference."""
    zero = np.zeros(1000, np.int64)
    draws = [noised(zero, 100.0) for _ in range(4)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            # the difference has twice the variance: nothing of the one is in the other
            assert (a - b).std() == pytest.approx(100 * 2**0.5, rel=0.15)


def test_10_1_10_no_low_bits_of_a_float_reach_a_release():
    """Mironov 2012: the floats that value + noise can be tell which value it was. Integers all can be."""
    clip, scale, n = 0.3, 2**10, 7.0

    def reachable(value, noise):
        return set((value + noise).tolist())

    noise = np.random.default_rng(0).laplace(size=2000)  # a float sampler, as usual
    assert len(reachable(0.0, noise) & reachable(0.1, noise)) < len(noise) / 10
    released = decode(noised(np.full(2000, 12, np.int64), 100.0), clip, scale, n)
    steps = released * scale * n / clip
    assert np.abs(steps - np.rint(steps)).max() < 1e-9
    again = decode(np.rint(steps).astype(np.int64), clip, scale, n)
    assert (again == released).all()  # a function of the integers alone


def test_10_1_11_noise_leaves_integers_integers():
    """Noise on integer buffers: counters became floats."""
    assert (torch.tensor([3, 4]) + torch.randn(2)).dtype == torch.float32
    counters = np.array([3, 4], np.int64)
    out = noised(counters, 2.0)
    assert out.dtype == np.int64 and counters.tolist() == [3, 4]
