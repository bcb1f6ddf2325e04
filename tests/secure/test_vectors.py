"""Published known answers for every primitive, and that ours are those primitives."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB

from manyloom.secure import keys, masks
from manyloom.secure.transcript import digest, tagged

H = bytes.fromhex
NINE = b"\x09" + bytes(31)


@pytest.mark.parametrize("scalar,u,out", [
    ("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
     "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
     "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
    ("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
     "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
     "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
])  # fmt: skip
def test_x25519(scalar: str, u: str, out: str) -> None:
    """RFC 7748, 5.2."""
    assert keys.agree(H(scalar), H(u)).hex() == out
    assert keys.agree_each(H(scalar), [NINE, H(u)])[1].hex() == out


@pytest.mark.parametrize("times,out", [
    (1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
    (1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"),
])  # fmt: skip
def test_x25519_again_and_again(times: int, out: str) -> None:
    """RFC 7748, 5.2."""
    k = u = NINE
    for _ in range(times):
        k, u = keys.agree(k, u), k
    assert k.hex() == out


def test_two_parties_agree() -> None:
    """RFC 7748, 6.1."""
    a = H("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    b = H("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert keys.public(a).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert keys.public(b).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    for one, other in ((a, b), (b, a)):
        shared = keys.agree(one, keys.public(other))
        assert shared.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


SMALL = (
    "00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)  # fmt: skip


@pytest.mark.parametrize("point", SMALL)
def test_every_point_of_small_order_is_refused(point: str) -> None:
    """RFC 7748, 6.1: the result would be zero. Also with the top bit set, which X25519 ignores."""
    for raw in (H(point), H(point)[:-1] + bytes([H(point)[-1] | 0x80])):
        with pytest.raises(ValueError):
            keys.agree(secrets.token_bytes(32), raw)


@pytest.mark.parametrize("secret,public,message,signature", [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
     "655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
     "b00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
     "c027beceea1ec40a"),
])  # fmt: skip
def test_ed25519(secret: str, public: str, message: str, signature: str) -> None:
    """RFC 8032, 7.1, tests 1 to 3."""
    key = Ed25519PrivateKey.from_private_bytes(H(secret))
    assert key.public_key().public_bytes_raw().hex() == public and key.sign(H(message)).hex() == signature
    assert keys.verify(H(public), H(signature), H(message))
    for at in range(0, 64, 7):
        wrong = bytearray(H(signature))
        wrong[at] ^= 1
        assert not keys.verify(H(public), bytes(wrong), H(message))
    assert not keys.verify(H(public), H(signature)[:-1], H(message)) and not keys.verify(b"", H(signature), b"")


@pytest.mark.parametrize("ikm,salt,info,out", [
    (b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)),
     "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
    (bytes(range(0x50)), bytes(range(0x60, 0xB0)), bytes(range(0xB0, 0x100)),
     "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8"
     "367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"),
    (b"\x0b" * 22, b"", b"", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
])  # fmt: skip
def test_hkdf(ikm: bytes, salt: bytes, info: bytes, out: str) -> None:
    """RFC 5869, A.1 to A.3."""
    assert keys._derive(ikm, salt, info, len(out) // 2).hex() == out  # pyright: ignore[reportPrivateUsage]


def test_seeds_are_those_of_the_protocol() -> None:
    shared, tid = b"s" * 32, b"t" * 32
    derive = keys._derive  # pyright: ignore[reportPrivateUsage]
    assert keys.mask_seed(shared, tid, 7, 3) == derive(shared, tid, tagged("mask", 3, 7), 16)
    assert keys.self_seed(tid, b"b" * 32) == digest("self", tid, b"b" * 32)[:16]
    assert keys.commitment(b"i" * 32, b"b" * 32) == digest("b", b"i" * 32, b"b" * 32)


SUNSCREEN = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
             b"would be it.")  # fmt: skip


def test_chacha20_poly1305() -> None:
    """RFC 8439, 2.8.2; ours is that cipher under the derived key, a zero nonce and the tagged header."""
    cipher = ChaCha20Poly1305(bytes(range(0x80, 0xA0)))
    sealed = cipher.encrypt(H("070000004041424344454647"), SUNSCREEN, H("50515253c0c1c2c3c4c5c6c7"))
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
        "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
        "61161ae10b594f09e26a7e902ecbd0600691"
    )
    shared, tid, plain = b"s" * 32, b"t" * 32, bytes(range(66))
    key = keys._derive(shared, tid, tagged("chan", 4, 9), 32)  # pyright: ignore[reportPrivateUsage]
    assert keys.seal(shared, tid, 4, 9, plain) == ChaCha20Poly1305(key).encrypt(
        bytes(12), plain, tagged("share", tid, 4, 9)
    )


def test_aes_in_counter_mode() -> None:
    """NIST SP 800-38A, F.5.1."""
    key, counter = H("2b7e151628aed2a6abf7158809cf4f3c"), H("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    text = H("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
             "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")  # fmt: skip
    assert Cipher(AES(key), CTR(counter)).encryptor().update(text).hex() == (
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )


@pytest.mark.parametrize("d", [0, 1, 3, 4, 5, 2**16 - 1, 2**16, 2**16 + 1, 2**17, 2**17 + 3])
def test_a_mask_is_the_cipher_of_a_counter_read_little_endian(d: int) -> None:
    """The stream block by block, of AES alone: also where one chunk ends and the next begins."""
    seed = secrets.token_bytes(16)
    blocks = b"".join(i.to_bytes(16, "big") for i in range(-(-d // 4)))
    stream = Cipher(AES(seed), ECB()).encryptor().update(blocks)[: 4 * d]
    x = np.zeros(d, np.uint32)
    masks.apply(x, [(seed, 1)])
    assert x.astype("<u4").tobytes() == stream
    masks.apply(x, [(seed, -1)])
    assert not x.any()


@pytest.mark.parametrize("seed,sign", [(bytes(15), 1), (bytes(32), 1), (bytes(16), 0), (bytes(16), 2)])
def test_a_mask_needs_a_seed_of_sixteen_bytes_and_a_sign(seed: bytes, sign: int) -> None:
    with pytest.raises(ValueError):
        masks.apply(np.zeros(3, np.uint32), [(seed, sign)])
