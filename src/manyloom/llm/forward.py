"""The module of a task: a base with adapters that takes rows of tokens and gives each row's loss and hits."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import checkpoint as _checkpoint

from manyloom.llm.adapters import first

NONE = -100  # no label
TOKENS = 4096  # of one forward pass without gradient
LOGITS = 64 << 20  # bytes of one piece of logits


class Reads(NamedTuple):
    """How a base may be read, found by probes when it is loaded."""

    split: bool  # head(backbone(ids)) equals the model: logits are made only where there is a label
    positions: bool  # it takes position ids
    packs: bool  # documents in one row, positions restarting, don't see each other


class Adapted(nn.Module):
    """A base with adapters: x [N, 3, T] int64 (ids, positions, labels) -> [N, 2] (mean loss, share of hits).

    Position t predicts token t + 1 (labels are shifted already); -100 is no label, position -1 padding. Names of
    parameters are those of a live PEFT model. A copy shares the frozen base's memory and has adapters of its own.
    """

    def __init__(self, base_model: Any, reads: Reads, spec: Any) -> None:
        super().__init__()
        self.base_model = base_model  # a LoraModel of peft
        self.reads = reads
        self.spec = spec  # what a saved adapter says of itself

    @property
    def language_model(self) -> Any:
        """The causal LM of transformers, with the adapters in it."""
        return self.base_model.model

    def adapters(self) -> dict[str, nn.Parameter]:
        """The factors, by name, in the layout's order."""
        every = cast("Iterable[tuple[str, nn.Parameter]]", self.named_parameters())
        return {n: p for n, p in every if ".lora_" in n}

    def start(self) -> Adapted:
        """Draw the first A from torch's generator, B = 0."""
        first(self.adapters())
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapted:
        mine = {id(p) for p in self.adapters().values()}
        for p in self.parameters():
            if id(p) not in mine:  # the same memory under a parameter of its own: a cast or a move stays with the copy
                memo[id(p)] = nn.Parameter(p.data, requires_grad=False)
        for b in self.buffers():
            memo[id(b)] = b
        memo[id(self.spec)] = self.spec
        new = Adapted.__new__(Adapted)
        memo[id(self)] = new
        new.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items()})
        return new

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._rows(x)
        widths = (x[:, 1] >= 0).sum(1)
        order = widths.argsort(descending=True, stable=True)
        out: Tensor | None = None
        at = 0
        while at < len(order):  # rows of like length together, so many tokens a pass
            n = max(1, TOKENS // max(1, int(widths[order[at]])))
            rows = order[at : at + n]
            found = self._rows(x[rows])
            out = found.new_empty(len(order), 2) if out is None else out
            out[rows] = found
            at += n
        return torch.zeros(0, 2, device=x.device) if out is None else out

    def _rows(self, x: Tensor) -> Tensor:
        real = x[:, 1] >= 0
        width = max(1, int(real.any(0).sum()))  # padding is on the right
        ids, positions, labels = x[:, :, :width].unbind(1)
        want = labels != NONE
        inputs = self._inputs(ids, positions, real[:, :width])
        model = self.language_model
        if self.reads.split:
            found = getattr(model, model.base_model_prefix)(**inputs, use_cache=False).last_hidden_state[want]
            head = cast("Callable[[Tensor], Tensor]", model.get_output_embeddings())
        else:
            found = model(**inputs, use_cache=False).logits[want]
            head = _as_is
        loss, hit = _judged(found, labels[want], head)
        owner = want.nonzero()[:, 0]
        count = want.sum(1).clamp_min(1).to(loss.dtype)
        zero = loss.new_zeros(len(x))
        mean = zero.index_add(0, owner, loss) / count
        share = zero.index_add(0, owner, hit) / count
        return torch.stack([mean, share.detach()], 1)

    def _inputs(self, ids: Tensor, positions: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Rows with one document get a mask over their padding; packed rows get positions alone."""
        if not self.reads.positions:
            return {"input_ids": ids, "attention_mask": real.long()}
        if bool((positions[:, 1:] == 0).any()):
            t = torch.arange(ids.shape[1], device=ids.device)
            tail = t - real.sum(1, keepdim=True)  # the padding is one more document, without labels
            return {"input_ids": ids, "position_ids": torch.where(real, positions, tail)}
        inputs = {"input_ids": ids, "position_ids": positions.clamp_min(0)}
        return inputs if bool(real.all()) else inputs | {"attention_mask": real.long()}


def _judged(rows: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy and hit of each label, [S], in float32 or better; logits are made piece by piece.

    With gradient a second piece would double the memory, so pieces are made again in the backward pass.
    """

    def piece(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        hit = (logits.detach().argmax(-1) == y).to(logits.dtype)
        return F.cross_entropy(logits, y, reduction="none"), hit

    vocabulary = _width(rows, head)
    n = max(16, LOGITS // (4 * vocabulary))
    if len(rows) <= n:
        return piece(rows, labels)
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    for at in range(0, len(rows), n):
        h, y = rows[at : at + n], labels[at : at + n]
        again = torch.is_grad_enabled() and head is not _as_is
        loss, hit = _again(piece, h, y) if again else piece(h, y)
        losses.append(loss)
        hits.append(hit)
    return torch.cat(losses), torch.cat(hits)


def _again(piece: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    keep = cast(Any, _checkpoint).checkpoint
    return cast("tuple[Tensor, Tensor]", keep(piece, h, y, use_reentrant=False, preserve_rng_state=False))


def _width(rows: Tensor, head: Callable[[Tensor], Tensor]) -> int:
    return int(getattr(head, "out_features", rows.shape[-1]))


def _as_is(rows: Tensor) -> Tensor:
    return rows


@torch.no_grad()
def probe(model: Any) -> Reads:
    """How a causal LM may be read: two documents of five and three tokens, together and apart.

    `split` and `packs` hold where logits agree to 1e-4 of the largest (1e-2 below float32).
    """
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ids = (torch.arange(8) * 7919 + 11).remainder(vocabulary)[None].to(model.device)
    whole = model(input_ids=ids, use_cache=False).logits[0]
    coarse = whole.dtype in (torch.float16, torch.bfloat16)
    near = (1e-2 if coarse else 1e-4) * max(1.0, float(whole.abs().max()))
    backbone, head = getattr(model, model.base_model_prefix, None), model.get_output_embeddings()
    split = False
    if backbone is not None and backbone is not model and head is not None:
        hidden = getattr(backbone(input_ids=ids, use_cache=False), "last_hidden_state", None)
        split = hidden is not None and hidden.shape[-1] == getattr(head, "in_features", -1)
        split = split and float((head(hidden)[0] - whole).abs().max()) <= near
    takes = "position_ids" in inspect.signature(model.forward).parameters
    packs = False
    if takes:
        at = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]], device=ids.device)
        both = model(input_ids=ids, position_ids=at, use_cache=False).logits[0]
        alone = [model(input_ids=part, use_cache=False).logits[0] for part in (ids[:, :5], ids[:, 5:])]
        packs = float((both - torch.cat(alone)).abs().max()) <= near
    return Reads(split, takes, packs)
