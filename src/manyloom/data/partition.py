"""Partitioners: how rows are dealt to clients. Draw once, then top up; every row goes to exactly one client.

The factories are the `[partition]` table: `dirichlet(clients=50, alpha=0.3)` is `scheme = "dirichlet"`,
`clients = 50`, `alpha = 0.3`. Each split draws from its own generator, made from the seed it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.core.errors import bad
from manyloom.core.validate import Above, AtLeast, checked
from manyloom.data.topup import top_up

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Scheme = Literal["natural", "iid", "dirichlet", "shards", "quantity"]
Clients = Annotated[int, AtLeast(1)]
Least = Annotated[int, AtLeast(0)]


@dataclass(frozen=True, repr=False)
class Partition:
    """A way to deal rows to clients: what the factories of this module make.

    >>> dirichlet(clients=50, alpha=0.3)
    dirichlet(clients=50, alpha=0.3)
    """

    scheme: Scheme
    clients: int | None
    min_samples: int = 1
    drop_empty: bool = False
    alpha: float | None = None
    classes_per_client: int | None = None
    sigma: float | None = None

    def __repr__(self) -> str:
        own = {k: v for k, v in self.table().items() if (k, v) not in {("min_samples", 1), ("drop_empty", False)}}
        return f"{self.scheme}({', '.join(f'{k}={v}' for k, v in own.items() if k != 'scheme')})"

    def table(self) -> dict[str, object]:
        """The `[partition]` table that makes it again."""
        return {k: v for k, v in vars(self).items() if v is not None}


@checked
def natural(*, clients: Clients | None = None, min_samples: Least = 1, drop_empty: bool = False) -> Partition:
    """The source's own clients, or (with fewer `clients`) whole groups of them.

    Args:
        clients: how many; the source's own by default, fewer are groups of them. For `synthetic`: how many to make.
        min_samples: least rows a client has; natural clients can't be topped up, so a smaller one is an error.
        drop_empty: leave out clients without a training row, in place of an error.
    """
    return Partition("natural", clients, min_samples, drop_empty)


@checked
def iid(*, clients: Clients, min_samples: Least = 1, drop_empty: bool = False) -> Partition:
    """Rows shuffled and dealt in equal parts (sizes differ by at most one).

    Args:
        clients: how many.
        min_samples: least rows a client ends with.
        drop_empty: leave out clients without a training row, in place of an error.
    """
    return Partition("iid", clients, min_samples, drop_empty)


@checked
def dirichlet(
    *,
    clients: Clients,
    alpha: Annotated[float, Above(0)] = 0.5,
    min_samples: Least = 1,
    drop_empty: bool = False,
) -> Partition:
    """Label skew: of each class c, clients get shares q_c ~ Dir(alpha); a number is cut into ten equal classes.

    Args:
        clients: how many.
        alpha: small is skewed: 0.1 gives most clients a few classes, 100 is nearly iid.
        min_samples: least rows a client ends with, topped up from the largest clients.
        drop_empty: leave out clients without a training row, in place of an error.

    Drawn once and topped up, so that it always ends; others redraw until the least size is met, which for
    alpha 0.1 and 200 clients happens in one draw of 500.
    Hsu, Qi, Brown 2019, arXiv:1909.06335.
    """
    return Partition("dirichlet", clients, min_samples, drop_empty, alpha=alpha)


@checked
def shards(
    *,
    clients: Clients,
    classes_per_client: Annotated[int, AtLeast(1)] = 2,
    min_samples: Least = 1,
    drop_empty: bool = False,
) -> Partition:
    """Pathological label skew: rows sorted by label, cut into equal shards, so many shards a client.

    Args:
        clients: how many.
        classes_per_client: shards a client.
        min_samples: least rows a client ends with.
        drop_empty: leave out clients without a training row, in place of an error.

    McMahan et al. 2017, AISTATS.
    """
    return Partition("shards", clients, min_samples, drop_empty, classes_per_client=classes_per_client)


@checked
def quantity(
    *,
    clients: Clients,
    sigma: Annotated[float, Above(0)] = 1.0,
    min_samples: Least = 1,
    drop_empty: bool = False,
) -> Partition:
    """Quantity skew: shuffled rows in lognormal parts, size ~ exp(sigma z).

    Args:
        clients: how many.
        sigma: spread of the sizes; 1 gives a largest client about ten times the median of a hundred.
        min_samples: least rows a client ends with.
        drop_empty: leave out clients without a training row, in place of an error.
    """
    return Partition("quantity", clients, min_samples, drop_empty, sigma=sigma)


SCHEMES = {"natural": natural, "iid": iid, "dirichlet": dirichlet, "shards": shards, "quantity": quantity}


class Skew(NamedTuple):
    """How far clients' labels are from the whole: sizes [k], entropy [k] in nats, total variation [k] in [0, 1]."""

    sizes: I64
    entropy: F64
    distance: F64


@dataclass(frozen=True, eq=False)
class Split:
    """Who got what: client i owns rows[off[i]:off[i + 1]], sorted; `moved` rows were moved by topping up.

    `natural`: its clients are the source's own, one to one.
    """

    rows: I64
    off: I64
    moved: int = 0
    natural: bool = False

    def report(self, y: npt.NDArray[np.generic]) -> Skew:
        """Sizes and label skew of the split, for labels y [n]."""
        codes = np.unique(y, return_inverse=True)[1]
        client = np.repeat(np.arange(len(self.off) - 1), np.diff(self.off))
        classes = int(codes.max(initial=-1)) + 1
        flat = np.bincount(client * classes + codes[self.rows], minlength=(len(self.off) - 1) * classes)
        return skew(flat.reshape(len(self.off) - 1, classes))


def skew(counts: I64) -> Skew:
    """Label skew of counts [k, C]: entropy -sum p log p, total variation to the whole 1/2 sum |p - q|.

    >>> skew(np.array([[3, 1], [1, 3]])).distance
    array([0.25, 0.25])
    """
    sizes = counts.sum(axis=1)
    p = counts / np.maximum(sizes, 1)[:, None]
    whole = counts.sum(axis=0) / max(int(counts.sum()), 1)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    distance = np.where(sizes > 0, 0.5 * np.abs(p - whole).sum(axis=1), 0.0)
    return Skew(sizes, -(p * logs).sum(axis=1), distance)


def split(spec: Partition, y: npt.NDArray[np.generic], seed: int, group: I64 | None = None, groups: int = 0) -> Split:
    """Deal rows with labels y [n] to clients. `group` [n]: each row's natural client, of `groups`.

    Raises `out-of-range` where a scheme can't give every client `min_samples` rows, and where `natural` has
    nothing to go by.
    """
    rng = seeds.generator(seed, 0, "partition")
    if spec.scheme == "natural":
        return _natural(spec, group, groups, rng)
    clients = spec.clients or 1
    n = len(y)
    if clients * spec.min_samples > n:
        raise bad(
            "out-of-range",
            f"{n} rows can't give {clients} clients {spec.min_samples} rows each",
            got=f"clients = {clients}, min_samples = {spec.min_samples} in [partition]",
            rule=f"clients x min_samples is at most {n}",
            mend=f"at most clients = {n // max(spec.min_samples, 1)} with this min_samples, "
            f"or min_samples = {n // clients} with these clients",
        )
    codes = _codes(y)
    owner = {"iid": _iid, "dirichlet": _dirichlet, "shards": _shards, "quantity": _quantity}[spec.scheme](
        spec, clients, codes, rng
    )
    moved = top_up(owner, codes, clients, spec.min_samples)
    return Split(*_by_owner(owner, clients), moved)


def largest_remainder(shares: F64, n: int) -> I64:
    """Whole numbers that sum to n, nearest to n * shares: floors, then the largest remainders (ties: the first).

    >>> largest_remainder(np.array([0.5, 0.25, 0.25]), 5)
    array([3, 1, 1])
    """
    exact = shares * n
    counts = np.floor(exact).astype(np.int64)
    rest = n - int(counts.sum())
    if rest < 0:  # shares that sum to a hair above one
        counts[np.argsort(np.where(counts > 0, exact - counts, np.inf), kind="stable")[:-rest]] -= 1
    elif rest:
        first = np.argsort(counts - exact, kind="stable")
        counts += np.bincount(np.resize(first, rest), minlength=len(counts))
    return counts


def _natural(spec: Partition, group: I64 | None, groups: int, rng: np.random.Generator) -> Split:
    if group is None:
        raise bad(
            "out-of-range",
            "this source has no clients of its own",
            got='scheme = "natural" in [partition]',
            rule="natural clients come from the source, or from a key column",
            mend='scheme = "dirichlet" or "iid" with clients = 10',
        )
    clients = spec.clients or groups
    if clients > groups:
        raise bad(
            "out-of-range",
            f"there are only {groups} natural clients",
            got=f"clients = {clients} in [partition]",
            rule=f"at most {groups}",
            mend="leave clients out to take them all",
        )
    owner = group
    if clients < groups:  # whole groups, in a drawn order, so many to a client
        cut = np.searchsorted(
            np.cumsum(largest_remainder(np.full(clients, 1 / clients), groups)),
            np.arange(groups),
            side="right",
        )
        owner = cut[np.argsort(rng.permutation(groups))][group]
    sizes = np.bincount(owner, minlength=clients)
    small = np.flatnonzero((sizes < spec.min_samples) & (sizes > 0))
    if len(small):
        raise bad(
            "out-of-range",
            f"{len(small)} natural clients have fewer than {spec.min_samples} rows",
            got=f"the smallest has {sizes[small].min()}; min_samples = {spec.min_samples} in [partition]",
            rule="natural clients can't be topped up",
            mend="lower min_samples, or group them: clients = 10",
        )
    return Split(*_by_owner(owner, clients), natural=clients == groups)


def _codes(y: npt.NDArray[np.generic]) -> I64:
    """Class of each row from 0; numbers are cut into ten classes of equal size."""
    if y.dtype.kind == "f":
        edges = np.quantile(y.astype(np.float64), np.arange(1, 10) / 10) if len(y) else np.zeros(0)
        return np.searchsorted(edges, y.astype(np.float64), side="right").astype(np.int64)
    return np.unique(y, return_inverse=True)[1].astype(np.int64)


def _iid(spec: Partition, clients: int, codes: I64, rng: np.random.Generator) -> I64:
    owner = np.empty(len(codes), np.int64)
    owner[rng.permutation(len(codes))] = np.arange(len(codes)) % clients
    return owner


def _dirichlet(spec: Partition, clients: int, codes: I64, rng: np.random.Generator) -> I64:
    alpha = float(spec.alpha or 0.5)
    owner = np.empty(len(codes), np.int64)
    for c in range(int(codes.max(initial=-1)) + 1):
        rows = rng.permutation(np.flatnonzero(codes == c))
        # Dir(alpha) as normalised gammas, in logarithms: for a small alpha the gammas themselves are all 0
        log = np.log(rng.standard_gamma(alpha + 1, clients)) + np.log1p(-rng.random(clients)) / alpha
        q = np.exp(log - log.max())
        owner[rows] = np.repeat(np.arange(clients), largest_remainder(q / q.sum(), len(rows)))
    return owner


def _shards(spec: Partition, clients: int, codes: I64, rng: np.random.Generator) -> I64:
    each = spec.classes_per_client or 1
    sizes = largest_remainder(np.full(clients * each, 1 / (clients * each)), len(codes))
    owner = np.empty(len(codes), np.int64)
    owner[np.argsort(codes, kind="stable")] = np.repeat(rng.permutation(clients * each) // each, sizes)
    return owner


def _quantity(spec: Partition, clients: int, codes: I64, rng: np.random.Generator) -> I64:
    log = float(spec.sigma or 1.0) * rng.standard_normal(clients)
    share = np.exp(log - log.max())
    owner = np.empty(len(codes), np.int64)
    owner[rng.permutation(len(codes))] = np.repeat(
        np.arange(clients), largest_remainder(share / share.sum(), len(codes))
    )
    return owner


def _by_owner(owner: I64, clients: int) -> tuple[I64, I64]:
    sizes = np.bincount(owner, minlength=clients)
    return np.argsort(owner, kind="stable").astype(np.int64), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def scheme(name: str, **keys: object) -> Partition:
    """The partition of a `[partition]` table: `scheme("iid", clients=10)`."""
    factory = SCHEMES.get(name)
    if factory is None:
        raise bad(
            "unknown-name",
            f'there is no partition scheme "{name}"',
            got=f'scheme = "{name}"',
            mend="one of " + ", ".join(SCHEMES),
        )
    return factory(**keys)  # type: ignore[arg-type]
