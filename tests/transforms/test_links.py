"""[uplink] and [downlink]: order, sizes, and the mixes that are refused with their reason."""

from dataclasses import replace

import pytest
import torch

from manyloom import algorithms as A
from manyloom.core.errors import BadInput
from manyloom.core.signature import keys
from manyloom.core.slots import size_bytes
from manyloom.transforms import clip, downlink, uplink
from tests.toys import job, play, theta
from tests.transforms.every import draw, error, normal, sent


@pytest.mark.parametrize(
    ("table", "codes", "says"),
    [
        ({"top_k": 0.1, "random_k": 0.1}, ["contradiction"], "top_k or random_k"),
        ({"eden": 1, "uniform": 8}, ["contradiction"], "qsgd, eden or uniform"),
        ({"qsgd": 4, "eden": 1, "uniform": 8}, ["contradiction"], "leave eden or uniform out"),
        ({"error_feedback": True}, ["error-feedback"], "nothing to feed back"),
        ({"clip": 1.0, "error_feedback": True}, ["error-feedback"], "nothing to feed back"),
        ({"eden": 1, "secure": True}, ["compression-beside-sum"], "rotates and scales its own way"),
        ({"qsgd": 4, "secure": True}, ["compression-beside-sum"], "own norm"),
        ({"uniform": 8, "private": True}, ["compression-beside-sum"], "own range"),
        ({"top_k": 0.1, "private": True}, ["compression-beside-sum"], "depends on the data"),
        ({"random_k": 0.1, "error_feedback": True, "private": True}, ["error-feedback"], "undoes it"),
        ({"clip": 1.0, "private": True}, ["clipped-twice"], "the clip of [privacy]"),
        ({"top_k": 0.1, "eden": 1, "secure": True}, ["compression-beside-sum"] * 2, "random_k = 0.1"),
        ({"clip": 0.0}, ["out-of-range"], "above 0"),
        ({"top_k": 0.0}, ["out-of-range"], "above 0"),
        ({"random_k": 1.5}, ["out-of-range"], "between 0 and 1"),
        ({"eden": 9}, ["out-of-range"], "between 1 and 8"),
        ({"eden": 0}, ["out-of-range"], "between 1 and 8"),
        ({"qsgd": 128}, ["out-of-range"], "between 1 and 127"),
        ({"uniform": 2.5}, ["wrong-type"], "a whole number"),
    ],
    ids=str,
)
def test_refused_with_what_why_and_mend(table, codes, says):
    with pytest.raises(BadInput) as told:
        uplink(**table)
    assert [p.code for p in told.value.problems] == codes and says in " ".join(str(told.value).split())
    for p in told.value.problems:
        assert p.got and (p.code in ("out-of-range", "wrong-type") or (p.rule and p.mend))


def test_the_downlink_takes_one_of_each_too():
    with pytest.raises(BadInput, match="one of them"):
        downlink(eden=4, uniform=8)
    assert set(keys(downlink)) - {"names", "d"} == set(keys(uplink)) - {
        "names", "d", "private", "secure", "clip", "error_feedback"
    }  # fmt: skip


def test_every_key_says_what_it_means():
    for factory in (uplink, downlink):
        assert all(k.meaning for k in keys(factory).values())


def test_nothing_asked_for_is_nothing_done():
    assert uplink().apply is None and uplink().name == "none" and uplink().bound(2.0) == 2.0


def test_beside_a_sum_only_one_mask_for_all():
    for beside in ({"private": True}, {"secure": True}):
        t = uplink(random_k=0.25, d=16, **beside)
        rows = sent(t, torch.ones(2, 16))
        assert rows.keys() == {"u"} and t.bound(1.0) == 4.0
        assert torch.equal(*(t.undo(rows, draw(2))["u"] != 0))
        assert uplink(clip=3.0, secure=True).bound(9.0) == 3.0 and uplink(**beside).apply is None


def test_the_order_is_clip_sparsify_quantise():
    t = uplink(uniform=4, top_k=0.1, clip=2.0, d=100)
    assert t.name == "clip, top_k, uniform"
    rows = sent(t, 50 * normal(1, 100))
    assert {n: tuple(m.shape[1:]) for n, m in rows.items()} == {
        "u.top_k.at": (10,), "u.uniform.bits": (5,), "u.uniform.range": (2,)
    }  # fmt: skip
    assert set(t.size({"u": torch.zeros(100)})) == set(rows) and rows["u.uniform.range"].abs().max() <= 2.0
    assert set(uplink(top_k=0.1, eden=1).size({"u": torch.zeros(100)})) == {
        "u.top_k.at", "u.top_k.n", "u.eden.bits", "u.eden.scale", "u.eden.n"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "known", "unknown"),
    [
        ({"eden": 1}, 644, 648),  # 5120 padded bits, S
        ({"eden": 4}, 2564, 2568),
        ({"uniform": 8}, 4818, 4822),
        ({"uniform": 4}, 2413, 2417),
        ({"qsgd": 4}, 2409, 2413),
        ({"top_k": 0.1}, 3848, 3852),
        ({"random_k": 0.1}, 1924, 1928),
        ({"top_k": 0.1, "uniform": 8}, 1924 + 481 + 8, 1924 + 481 + 16),
        ({"clip": 1.0}, 19240, 19240),
    ],
    ids=str,
)
def test_bytes_of_a_small_model(table, known, unknown):
    """d = 4810: 19 240 bytes of float32; with the length known to both ends, and without."""
    like = {"u": torch.empty(4810, device="meta")}
    assert size_bytes(uplink(**table, d=4810).size(like)) == known
    assert size_bytes(uplink(**table).size(like)) == unknown == size_bytes(sent(uplink(**table), normal(1, 4810)))


def test_bytes_of_a_million():
    assert size_bytes(uplink(eden=1).size({"u": torch.empty(1_000_000, device="meta")})) == 125_448


def test_a_model_on_its_way_down():
    t = downlink(uniform=8, names=("theta", "c"))
    body = {"theta": normal(1, 500), "c": normal(1, 500, 2), "share": torch.ones(1, 1)}
    packed, _ = t.apply(body, {}, {}, draw())
    back = t.undo(packed, draw())
    assert set(back) == set(body) and 0 < error(body["theta"], back["theta"]) < 1e-3
    assert size_bytes(packed) == size_bytes(t.size({n: v[0] for n, v in body.items()})) == 2 * (500 + 8 + 4) + 4


def test_clipping():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [1e30, 0.0], [1e-45, 0.0]])
    out = sent(clip(1.0), rows)["u"]
    torch.testing.assert_close(out, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [1.0, 0.0], [1e-45, 0.0]]))
    assert torch.equal(out[[1, 2, 4]], rows[[1, 2, 4]]) and bool((out.double().norm(dim=1) <= 1).all())
    bad = sent(clip(1.0), torch.tensor([[float("nan"), 9.0], [float("inf"), 1.0]]))["u"]
    assert bad.isnan()[0, 0] and bad.isinf()[1, 0]
    both, _ = clip(5.0, names=("u", "dc")).apply({"u": rows[:1], "dc": 12 * torch.ones(1, 1)}, {}, {}, draw())
    torch.testing.assert_close(both["dc"], torch.tensor([[12 * 5 / 13]]))
    huge = sent(clip(1.0), torch.tensor([[1e200, 1e200]], dtype=torch.float64))["u"]
    torch.testing.assert_close(huge, torch.full((1, 2), 0.5**0.5, dtype=torch.float64))


@pytest.mark.parametrize("table", [{"eden": 1}, {"top_k": 0.2, "error_feedback": True}, {"random_k": 0.5, "qsgd": 64}])
def test_a_job_sends_what_was_told_and_learns(table):
    plain = job(A.fedavg(lr=0.1, batch_size=5), rounds=8)
    t = uplink(**table)
    packed = replace(plain, algorithm=replace(plain.algorithm, uplink=t))
    events = play(packed)
    d = theta(plain).numel()
    told = size_bytes(t.size({"u": torch.empty(d, device="meta")}))
    assert {e.bytes_up for e in events if e.type == "round_done"} == {5 * (told + 12)}
    losses = [e.to_json()["metrics"]["loss"] for e in events if e.type == "evaluated"]
    assert losses[-1] < losses[0]
