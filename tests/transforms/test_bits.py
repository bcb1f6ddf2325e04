"""The wire's layouts by hand: packed bits, codes, places; and what is malformed."""

import numpy as np
import pytest
import torch

from manyloom.core.seeds import counters
from manyloom.transforms import eden, qsgd, random_k, top_k, uniform
from manyloom.transforms.bits import pack, signs, uniforms, unpack, width
from tests.transforms.every import draw, sent, through

BYTE = torch.uint8


@pytest.mark.parametrize(
    ("bits", "codes", "stream"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 1, 1], [0b10001101, 0b1]),
        (2, [1, 2, 3], [0b111001]),
        (3, [1, 2, 3, 4, 5, 6, 7, 0, 7], [0b11010001, 0b01011000, 0b00011111, 0b111]),
        (4, [1, 15, 2], [0xF1, 0x02]),
        (5, [31, 0, 31], [0b00011111, 0b01111100]),
        (7, [127, 1], [0b11111111, 0]),
        (8, [200, 0, 255], [200, 0, 255]),
    ],
)
def test_packed_by_hand(bits, codes, stream):
    codes = torch.tensor(codes, dtype=BYTE)
    assert pack(codes, bits).tolist() == stream
    assert unpack(torch.tensor(stream, dtype=BYTE), bits, len(codes)).tolist() == codes.tolist()


@pytest.mark.parametrize("bits", range(1, 9))
def test_any_length_comes_back(bits):
    rng = np.random.default_rng(bits)
    for n in (1, 2, 7, 8, 9, 63, 64, 65, 1000):
        codes = torch.from_numpy(rng.integers(0, 2**bits, n).astype(np.uint8))
        stream = pack(codes, bits)
        assert stream.dtype == BYTE and len(stream) == width(n, bits) == -(-n * bits // 8)
        assert torch.equal(unpack(stream, bits, n), codes)


def test_random_bits_are_the_counters():
    key = np.array([7], np.uint64)
    first = int(counters(key, 1)[0, 0])
    assert signs(key, 3).tolist() == [-1.0 if first >> i & 1 else 1.0 for i in range(3)]
    assert uniforms(key, 2).tolist() == [((first & 0xFFFFFFFF) >> 8) / 2**24, (first >> 40) / 2**24]
    many = uniforms(key, 100_001)
    assert 0 <= float(many.min()) and float(many.max()) < 1 and abs(float(many.mean()) - 0.5) < 0.005
    assert abs(float(signs(key, 100_001).mean())) < 0.02


def test_messages_by_hand():
    x = torch.tensor([[0.0, -3.0, 4.0, 0.0]])
    top = sent(top_k(0.5), x)
    assert top["u"].tolist() == [[-3.0, 4.0]] and top["u.top_k.at"].tolist() == [[1, 2]]
    assert top["u.top_k.at"].dtype == torch.int32 and top["u.top_k.n"].tolist() == [[4]]
    assert sent(top_k(0.5, d=4), x).keys() == {"u", "u.top_k.at"}
    assert sent(random_k(1.0, d=4), x)["u"].tolist() == x.tolist()
    q = sent(qsgd(5), x)  # 5 |x| / ||x|| = 0 3 4 0 exactly: nothing is left to chance; s + level in 4 bits
    assert q["u.qsgd.norm"].tolist() == [[5.0]] and q["u.qsgd.bits"].tolist() == [[0x25, 0x59]]
    u = sent(uniform(3), torch.tensor([[0.0, 7.0, 3.0, 5.0]]))
    assert u["u.uniform.range"].tolist() == [[0.0, 7.0]]
    assert u["u.uniform.bits"].tolist() == [[0b11111000, 0b1010]]  # 0 7 3 5
    one = sent(eden(1), torch.tensor([[2.5]]))  # d = 1: a sign
    assert one["u.eden.bits"].shape == (1, 1) and abs(one["u.eden.scale"].item() - 2.5 / 0.7978846) < 1e-6


def test_of_equal_magnitudes_the_first():
    x = torch.tensor([[1.0, -1.0, 1.0, -2.0, 1.0]])
    assert sent(top_k(0.6), x)["u.top_k.at"].tolist() == [[0, 1, 3]]
    assert sent(top_k(0.4), torch.zeros(1, 5))["u.top_k.at"].tolist() == [[0, 1]]


def test_a_constant_is_exact():
    x = torch.full((2, 9), 0.1)
    assert torch.equal(through(uniform(1), x), x)


def test_one_mask_for_all_is_linear():
    t = random_k(0.25, d=40, shared=True)
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    packed = sent(t, x)
    assert packed.keys() == {"u"} and packed["u"].shape == (3, 10)
    back = through(t, x)
    assert torch.equal(back != 0, (back != 0)[:1].expand(3, -1))
    # whoever has the sum alone undoes it alone
    torch.testing.assert_close(t.undo({"u": packed["u"].sum(0, keepdim=True)}, draw(0))["u"][0], back.sum(0))
    own = through(random_k(0.25), x)
    assert not torch.equal((own != 0)[0], (own != 0)[1])


def test_every_place_is_drawn_alike():
    back = through(random_k(0.2), torch.ones(2000, 10), draw(2000))
    assert (back.count_nonzero(1) == 2).all() and set(back.unique().tolist()) == {0.0, 5.0}
    share = (back != 0).double().mean(0)
    assert float((share - 0.2).abs().max()) < 0.04


@pytest.mark.parametrize(
    ("t", "spoil"),
    [
        (top_k(0.5), {"u.top_k.at": torch.tensor([[0, 4]], dtype=torch.int32)}),
        (top_k(0.5), {"u.top_k.at": torch.tensor([[-1, 2]], dtype=torch.int32)}),
        (top_k(0.5), {"u.top_k.at": torch.tensor([[0, 1]])}),
        (top_k(0.5), {"u.top_k.n": torch.tensor([[2_000_000_000]], dtype=torch.int32)}),
        (random_k(0.5), {"u.random_k.n": torch.tensor([[400]], dtype=torch.int32)}),
        (random_k(0.5), {"u.random_k.n": torch.tensor([[-4]], dtype=torch.int32)}),
        (qsgd(4), {"u.qsgd.n": torch.tensor([[2_000_000_000]], dtype=torch.int32)}),
        (eden(1), {"u.eden.n": torch.tensor([[2_000_000_000]], dtype=torch.int32)}),
        (eden(1), {"u.eden.bits": torch.zeros(1, 9, dtype=BYTE)}),
        (uniform(4), {"u.uniform.range": torch.zeros(1, 1)}),
    ],
)
def test_a_malformed_message_is_refused_before_it_is_unpacked(t, spoil):
    full = sent(t, torch.ones(1, 4)) | spoil
    with pytest.raises(ValueError, match="place|declared|numbers"):
        t.undo(full, draw())


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="has 4 numbers, declared 5"):
        sent(eden(1, d=5), torch.ones(1, 4))
    message = sent(eden(1), torch.ones(2, 4))
    message["u.eden.n"] = torch.tensor([[4], [3]], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        eden(1).undo(message, draw(2))


def test_codes_that_no_client_makes_are_cut_to_the_last_level():
    t = qsgd(5)
    message = sent(t, torch.tensor([[3.0, 4.0]]))
    message["u.qsgd.bits"].fill_(255)
    assert t.undo(message, draw())["u"].tolist() == [[5.0, 5.0]]
