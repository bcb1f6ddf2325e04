"""Adapters: which matrices of a base get one, how they are paired in theta, and their first values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from manyloom.core.errors import BadInput, bad
from manyloom.core.flat import Layout
from manyloom.core.signature import keys, wrong
from manyloom.core.validate import Above, AtLeast, Below

BEFORE = "base_model.model."  # PEFT's prefix of a module's path
DEFAULT = ".default"  # PEFT's name of the adapter, in a live model only
USUAL = (("q_proj", "v_proj"), ("c_attn",), ("query_key_value",), ("qkv_proj",), ("Wqkv",), ("query", "value"))
Combine = Literal["svd", "fedavg", "ffa", "rolora"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2022, arXiv:2106.09685): W = W0 + (alpha / r) B A, A [r, n], B [m, r].

    Args:
        r: rank.
        alpha: scale times rank.
        targets: "all-linear" (every linear layer but the output head), or names of modules; by default the
            attention's q and v.
        dropout: of an adapter's input, in training.
        combine: how the hub combines adapters: "svd" (exact product average at rank r), "fedavg" (factors
            averaged: inexact), "ffa" (A frozen), "rolora" (B and A in turn).
    """

    r: Annotated[int, AtLeast(1)] = 8
    alpha: Annotated[float, Above(0)] = 16.0
    targets: Sequence[str] | str | None = None
    dropout: Annotated[float, Below(1)] = 0.0
    combine: Combine | None = None

    def __post_init__(self) -> None:
        if found := wrong(keys(Lora), vars(self), "lora"):
            raise BadInput(*found)

    @property
    def scale(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.r


class Pair(NamedTuple):
    """The two factors of one matrix: their names in the layout, and the scale s of their product."""

    a: str
    b: str
    scale: float

    @property
    def module(self) -> str:
        """The path of the module in the base."""
        return self.b.removeprefix(BEFORE).rsplit(".lora_B", 1)[0]


class Targets(NamedTuple):
    """What adapters are put on."""

    names: tuple[str, ...]  # as they are written into an adapter's configuration
    paths: tuple[str, ...]  # the modules they match, in the base's order
    transposed: bool  # GPT-2's Conv1D: weights are [in, out]


def library(name: str) -> Any:
    """A module of the extra `llm`; `extra-missing` says how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise bad(
            "extra-missing",
            f"language models need {name.partition('.')[0]}, which is not installed",
            got=str(error),
            mend='pip install "manyloom[llm]"',
        ) from error


def targets_of(base: nn.Module, wanted: Sequence[str] | str | None, head: nn.Module | None = None) -> Targets:
    """The linear layers that targets name: a module of that path, or whose path ends in `.name`.

    Args:
        base: the model.
        wanted: names, "all-linear", or None: q and v, as the architecture calls them.
        head: the output head, which "all-linear" leaves out.

    Raises:
        BadInput: `unknown-target` for a name that matches nothing or no linear layer; near names are offered.
    """
    conv = _conv1d()
    every = {n: m for n, m in cast("Iterable[tuple[str, nn.Module]]", base.named_modules()) if n}
    linear = {n: m for n, m in every.items() if isinstance(m, (nn.Linear, *conv))}
    if isinstance(wanted, str) and wanted != "all-linear":
        wanted = [wanted]
    if wanted is None:
        ends = {n.rpartition(".")[2] for n in linear}
        found = [names for names in USUAL if set(names) <= ends]
        if not found:
            raise _unknown("the usual targets", ", ".join(" and ".join(u) for u in USUAL), linear, "")
        wanted = found[0]
    if isinstance(wanted, str):
        paths = [n for n, m in linear.items() if m is not head]
        names = _short(paths, every)
    else:
        names = tuple(dict.fromkeys(wanted))
        for name in names:
            hit = [n for n in every if _names(name, n)]
            if not any(n in linear for n in hit):
                raise _unknown(f'the target "{name}"', "no module" if not hit else "no linear layer", linear, name)
        paths = [n for n in linear if any(_names(name, n) for name in names)]
    if not paths:
        raise _unknown("all-linear", "no linear layer", linear, "")
    return Targets(names, tuple(paths), all(isinstance(linear[n], conv) for n in paths) if conv else False)


def pairs_of(layout: Layout | Iterable[str], scale: float) -> tuple[Pair, ...]:
    """The factor pairs of a layout, in its order; names of both halves are needed.

    >>> pairs_of(["base_model.model.h.0.lora_A.default.weight", "base_model.model.h.0.lora_B.default.weight"], 2.0)
    (Pair(a='base_model...lora_A.default.weight', b='base_model...lora_B.default.weight', scale=2.0),)
    """
    names = list(layout.names) if isinstance(layout, Layout) else list(layout)
    there = set(names)
    halves = [(n, n.replace(".lora_A.", ".lora_B.")) for n in names if ".lora_A." in n]
    return tuple(Pair(a, b, scale) for a, b in halves if b in there)


def saved_name(name: str) -> str:
    """The key of a live tensor in an adapter's file.

    >>> saved_name("base_model.model.h.0.attn.c_attn.lora_A.default.weight")
    'base_model.model.h.0.attn.c_attn.lora_A.weight'
    """
    return name.replace(f"{DEFAULT}.weight", ".weight")


def first(tensors: Mapping[str, Tensor]) -> None:
    """PEFT's start, in place: A uniform in +-1/sqrt(n) from torch's generator, on the CPU, in order; B zero."""
    with torch.no_grad():
        for name, t in tensors.items():
            if ".lora_A." in name:
                draw = torch.empty(t.shape).uniform_(-1.0, 1.0) / math.sqrt(t.shape[1])
                t.copy_(draw)
            elif ".lora_B." in name:
                t.zero_()


def _conv1d() -> tuple[type[nn.Module], ...]:
    return (library("transformers.pytorch_utils").Conv1D,)


def _names(target: str, path: str) -> bool:
    return path == target or path.endswith("." + target)


def _short(paths: Sequence[str], every: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The last parts of paths, if they name these modules alone; else the paths themselves."""
    ends = tuple(dict.fromkeys(n.rpartition(".")[2] for n in paths))
    matched = [n for n in every if any(_names(e, n) for e in ends)]
    return ends if len(matched) == len(paths) else tuple(paths)


def _unknown(what: str, got: str, linear: Mapping[str, object], name: str) -> Exception:
    ends = list(dict.fromkeys(n.rpartition(".")[2] for n in linear))
    near = get_close_matches(name.rpartition(".")[2], ends, 3, 0.5) if name else []
    rule = "linear layers are called " + ", ".join(ends[:12]) if ends else "the base has no linear layer"
    mend = " or ".join(f'targets = ["{n}"]' for n in near) or 'name some of them, or targets = "all-linear"'
    return bad("unknown-target", f"{what} is not in the base model", got=got, rule=rule, mend=mend)
