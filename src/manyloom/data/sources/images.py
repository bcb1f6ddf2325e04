"""Images in the IDX format: MNIST by its NIST writers, and Fashion-MNIST."""

from __future__ import annotations

import gzip
import zlib
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import AtLeast, checked
from manyloom.data.build import federate, unit
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.found import find, open_checked
from manyloom.data.sources.info import SourceInfo
from manyloom.data.sources.registry import FASHION_MNIST, MNIST
from manyloom.data.sources.sklearn import not_a_table
from manyloom.data.store import Slab

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
Groups = tuple[list[str], list[str], npt.NDArray[np.int64]]
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@checked
def mnist(
    *,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
    data_dir: str | None = None,
) -> Federation:
    """Handwritten digits, 28 x 28 pixels in [0, 1], of 539 writers; the own test set is by 297 others.

    Args:
        partition: how images are dealt; by default each writer is a client.
        test: "own" (10 000 images by other writers, judged at the hub; the default), or a share held out at
            each
            client, of each class.
        standardise: pixels are in [0, 1] already; must stay false.
        seed: of partition and held-out rows.
        data_dir: the directory above vision/mnist; by default the one MANYLOOM_DATA names.
    """
    not_a_table(standardise, "mnist")
    files = find(MNIST, data_dir, "four IDX files", instead="digits")
    natural = partition is None or partition.scheme == "natural"
    groups = _writers(data_dir, len(read_idx(files[1], MNIST.files[1].name))) if natural else None
    word = ("writer", "writers") if natural else ("client", "clients")
    return _images(MNIST, files, [str(i) for i in range(10)], partition, test, seed, groups, word)


def _writers(data_dir: str | None, images: int) -> Groups:
    assert MNIST.writers is not None
    name, sha256, _ = MNIST.writers
    mend = 'get it as docs/data.md says, or deal images otherwise: [partition] scheme = "iid", clients = 100'
    rule = f"who wrote each image, sha256 {sha256[:16]}..."
    facts = read_idx(open_checked(MNIST, MNIST.writers, data_dir, rule, mend), name)
    if facts.ndim != 2 or len(facts) != images or facts.shape[1] < 3:
        raise bad(
            "data-corrupt",
            "the writers do not fit the images",
            got=f"{len(facts)} rows, {images} images",
            rule="one row of facts an image",
            mend="get both again; docs/data.md says where",
        )
    ids, group = np.unique(facts[:, 2].astype(np.int64), return_inverse=True)  # column 2 is the NIST writer
    names = [f"writer-{i:04d}" for i in ids.tolist()]
    return names, names, group.astype(np.int64)


@checked
def fashion_mnist(
    *,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
    data_dir: str | None = None,
) -> Federation:
    """Clothes, 28 x 28 pixels in [0, 1], 10 classes, with its own 10 000 test images.

    Args:
        partition: how images are dealt; required, as clothes have no owners here.
        test: "own" (judged at the hub; the default), or a share held out at each client, of each class.
        standardise: pixels are in [0, 1] already; must stay false.
        seed: of partition and held-out rows.
        data_dir: the directory above vision/fashion_mnist; by default the one MANYLOOM_DATA names.
    """
    not_a_table(standardise, "fashion-mnist")
    files = find(FASHION_MNIST, data_dir, "four IDX files", instead="digits")
    return _images(FASHION_MNIST, files, CLOTHES, partition, test, seed, None, ("client", "clients"))


def _images(
    info: SourceInfo,
    files: list[bytes],
    labels: list[str] | tuple[str, ...],
    partition: Partition | None,
    test: TestKey,
    seed: int,
    groups: Groups | None,
    client_word: tuple[str, str],
) -> Federation:
    arrays = [read_idx(data, file.name) for data, file in zip(files, info.files)]
    (x, y), (own_x, own_y) = _pair(arrays[0], arrays[1], info), _pair(arrays[2], arrays[3], info)
    own = Slab(own_x, own_y, np.arange(len(own_y)), np.array([0, len(own_y)], np.int64), unit)
    return federate(
        (x, y),
        info,
        partition=partition,
        test=test,
        seed=seed,
        groups=groups,
        own=own,
        labels=labels,
        classes=10,
        client_word=client_word,
        row_word=("image", "images"),
    )


def _pair(images: npt.NDArray[Any], labels: npt.NDArray[Any], info: SourceInfo) -> tuple[Tensor, Tensor]:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise bad(
            "data-corrupt",
            f"the files of {info.name} do not fit each other",
            got=f"images {list(images.shape)}, labels {list(labels.shape)}",
            rule="images [n, height, width], labels [n]",
            mend="get them again; docs/data.md says where",
        )
    return from_numpy(images[:, None]), from_numpy(labels.astype(np.int64))


def read_idx(data: bytes, name: str) -> npt.NDArray[Any]:
    """An IDX file, plain or gzipped: two zero bytes, the type, the number of axes, their lengths, the elements.

    Raises `data-corrupt` for anything else, a file cut in half included.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels")
    array([7, 9], dtype=uint8)
    """
    try:
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        if raw[:2] != b"\0\0" or raw[2] not in TYPES:
            raise ValueError("it does not begin as an IDX file")
        shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
        found = np.frombuffer(raw, TYPES[raw[2]], offset=4 + 4 * len(shape)).reshape(shape)
    except (ValueError, IndexError, EOFError, OSError, zlib.error) as error:
        raise bad(
            "data-corrupt",
            f"{name} is not the file that was expected",
            got=f"{len(data)} bytes: {error}",
            rule="an IDX file, plain or gzipped",
            mend="delete it and get it again; docs/data.md says where",
        ) from error
    return found.astype(found.dtype.newbyteorder("="))
