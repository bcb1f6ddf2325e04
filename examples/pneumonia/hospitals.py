"""Chest X-rays of children (PneumoniaMNIST, MedMNIST v2, CC BY 4.0) at five made hospitals, for `[data] source`.

The hospitals differ in how many of their children are ill, 92 to 28 of 100: the 4,708 training images are dealt by
label in the shares below. The set's own 624 test images, of another mix (62.5 % ill), stay at the hub and judge every
model.
"""

from pathlib import Path

import numpy as np
import torch

from manyloom.data import Federation

NAMES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4", "hospital-5")
SHARES = {1: (0.40, 0.30, 0.20, 0.06, 0.04), 0: (0.10, 0.10, 0.20, 0.30, 0.30)}  # of the ill, of the healthy
FILE = "medical/medmnist/pneumoniamnist.npz"


def deal(y: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows of each hospital, in the order of the file.

    >>> y = np.array([1] * 300 + [0] * 100)
    >>> [len(rows) for rows in deal(y, 0)]
    [130, 100, 80, 48, 42]
    """
    draw, hospital = np.random.default_rng(seed), np.empty(len(y), np.int64)
    for label, shares in SHARES.items():
        rows = draw.permutation(np.flatnonzero(y == label))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(int)
        hospital[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right")
    return [np.flatnonzero(hospital == i) for i in range(len(NAMES))]


def federation(x: np.ndarray, y: np.ndarray, own: tuple[np.ndarray, np.ndarray], seed: int) -> Federation:
    """Pixels x [n, 28, 28] and labels y [n] at five hospitals; `own` are the test images."""

    def unit(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels.astype(np.float32) / 255 - 0.5)

    test = (unit(own[0]), torch.from_numpy(own[1].astype(np.int64)))
    return Federation.of_tensors(unit(x), y.astype(np.int64), deal(y, seed), own=test, names=NAMES, test=0.0, seed=seed,
                                 classes=2, labels=("healthy", "pneumonia"))  # fmt: skip


def pneumonia(*, data_dir: str, seed: int = 0) -> Federation:
    """The images under `data_dir`, dealt by the seed."""
    with np.load(Path(data_dir).expanduser() / FILE) as file:
        part = {name: file[name] for name in ("train_images", "train_labels", "test_images", "test_labels")}
    own = (part["test_images"], part["test_labels"].ravel())
    return federation(part["train_images"], part["train_labels"].ravel(), own, seed)
