"""What a run says of the language model it tunes: the adapter, clients' texts, how adapters were combined, samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from manyloom.core import text as say
from manyloom.core import tuning
from manyloom.core.text import count, finite, listed, plural

RULES = {
    "svd": ("svd", "the best adapter of this rank for the mean of the clients’ products",
            "FlexLoRA, Bai et al. 2024, arXiv:2402.11505"),
    "fedavg": ("fedavg", "the mean of each factor, which is not the mean of the products",
               "FedIT, Zhang et al. 2023, arXiv:2305.05644"),
    "ffa": ("ffa", "A is frozen and the same for all, B is averaged",
            "FFA-LoRA, Sun et al. 2024, arXiv:2403.12313"),
    "rolora": ("rolora", "B and A are trained and averaged in turn", "RoLoRA, Chen et al. 2025, arXiv:2409.02346"),
}  # fmt: skip
"""Of each rule: its name, what it does, where it is from."""
TOKENS = ("token", "tokens")
MATRICES = ("matrix", "matrices")
KINDS = ("rows", "supervised", "dropped", "shortened")  # what is counted of a client's texts


class Texts(NamedTuple):
    """A client's texts as training rows of tokens."""

    client: int
    name: str
    rows: int
    supervised: int
    dropped: int
    shortened: int


class Merge(NamedTuple):
    """How far a round's combination was from the mean of the clients' products; None: it can't be seen."""

    round: int
    mean: float | None
    most: float | None
    exact: bool


class Said(NamedTuple):
    """What the model said to a prompt after a round; 0: before training."""

    round: int
    prompt: str
    text: str


@dataclass
class Tuned:
    """All of it; empty for other models."""

    adapter: Mapping[str, Any] = field(default_factory=dict[str, Any])
    texts: list[Texts] = field(default_factory=list[Texts])
    merges: list[Merge] = field(default_factory=list[Merge])
    said: list[Said] = field(default_factory=list[Said])

    def take(self, e: Mapping[str, Any]) -> None:
        """Take one event of a type that is told of language models alone."""
        kind, r = e.get("type"), int(e.get("round") or 0)
        if kind == "adapter":
            self.adapter = e
        elif kind == "tokens":
            rows, supervised, dropped, shortened = (int(e.get(k) or 0) for k in KINDS)
            client = int(e.get("client") or 0)
            self.texts.append(Texts(client, str(e.get("name", client)), rows, supervised, dropped, shortened))
        elif kind == "combined":
            self.merges = [m for m in self.merges if m.round != r]  # a round that was tried again
            mean, most = (finite(e.get(f"agg_error_{k}")) for k in ("mean", "max"))
            self.merges.append(Merge(r, mean, most, bool(e.get("exact"))))
        elif kind == "sample":
            self.said.append(Said(r, str(e.get("prompt") or ""), str(e.get("text") or "")))

    @property
    def base(self) -> str:
        return str(self.adapter.get("base") or "its base")

    @property
    def rule(self) -> str:
        return str(self.adapter.get("combine") or "")

    @property
    def exact(self) -> bool:
        """Whether the rule makes the mean of factors the mean of products."""
        return self.rule in ("ffa", "rolora")

    def size(self, parameters: object) -> str:
        """ "4 adapters of rank 4: 896 of 36 640 parameters" """
        a = self.adapter
        numbers = a.get("d", parameters)
        whole = a.get("base_parameters")
        of = f"{count(numbers)} of {count(whole)} parameters" if whole and numbers is not None else \
            plural(numbers, ("parameter", "parameters")) if isinstance(numbers, int) else ""  # fmt: skip
        if not a:
            return of
        return f"{plural(int(a['matched']), ('adapter', 'adapters'))} of rank {a['r']}: {of}"

    def where(self) -> str:
        """ "4 matrices of tiny-llama (q_proj, v_proj)" """
        a = self.adapter
        targets = [str(t) for t in a.get("targets") or ()]
        return f"{plural(int(a.get('matched') or 0), MATRICES)} of {self.base} ({listed(targets)})"

    def error(self) -> str:
        """The aggregation error of the last round, in words."""
        if self.exact:
            return "exact by construction"
        if not self.merges:
            return "nothing was combined"
        last = self.merges[-1]
        if last.mean is None:
            return "its error can’t be seen in a sum"
        return f"error {tuning.error(last.mean)} in round {last.round}, at most {tuning.error(last.most)} in a matrix"

    def how(self) -> str:
        """The rule and its error; of one client alone there is nothing to combine."""
        return f"combined by {self.rule}: {self.error()}" if self.merges or self.exact else self.error()

    def totals(self) -> Texts:
        """The texts of all clients."""
        every = self.texts
        rows, supervised = sum(t.rows for t in every), sum(t.supervised for t in every)
        dropped, shortened = sum(t.dropped for t in every), sum(t.shortened for t in every)
        return Texts(-1, "all", rows, supervised, dropped, shortened)

    def texts_line(self) -> str:
        """Tokens that count, texts that were dropped or cut."""
        t = self.totals()
        told = [f"{count(t.supervised)} supervised tokens in {plural(t.rows, ('row', 'rows'))} to train on"]
        told += [f"{plural(t.dropped, ('text', 'texts'))} without one dropped"] if t.dropped else []
        told += [f"{plural(t.shortened, ('text', 'texts'))} cut to length"] if t.shortened else []
        return "; ".join(told if len(told) > 1 else [*told, "none dropped, none cut"])

    def answers(self) -> list[tuple[str, str | None, str | None]]:
        """Each prompt with what was said to it before training and last; None: not asked yet."""
        found: dict[str, list[str | None]] = {}
        for s in self.said:
            pair = found.setdefault(s.prompt, [None, None])
            pair[0 if s.round == 0 else 1] = s.text
        return [(prompt, a, b) for prompt, (a, b) in found.items()]

    def shown(self) -> list[str]:
        """Lines of `manyloom show`: where adapters sit, how they were combined, the texts, what it says."""
        if not self.adapter:
            return []
        told = f"rank {self.adapter.get('r')} on {self.where()}\n{self.how()}"
        lines = [say.field("adapter", told.replace("’", "'"))]
        lines += [say.field("texts", self.texts_line())] if self.texts else []
        last = [f'"{say.cut(prompt, 30)}" "{say.cut(b, 120)}"' for prompt, _, b in self.answers() if b is not None]
        return lines + [say.field("" if i else "sample", told) for i, told in enumerate(last[:2])]

    def carded(self) -> list[str]:
        """Paragraphs of the model card on how it was made."""
        if not self.adapter:
            return []
        base = f"Base: {self.base}, digest {say.digest(self.adapter.get('base_digest'))}."
        out = ["", f"Adapters: on {self.where()}; {self.how()}. {base}".replace("’", "'")]
        return [*out, *(["", f"Texts: {self.texts_line()}."] if self.texts else [])]

    def use(self, run: str) -> list[str]:
        """Paragraphs of the model card on how it is loaded."""
        return [
            "The adapter lies in `adapter/` of the run's folder; PEFT loads it over the same base, by name or folder:",
            "",
            "```python",
            *loading(self.base, "adapter").split("\n"),
            "```",
            "",
            f'`manyloom.load("{run}").module` is the tuned model.',
        ]


def loading(base: str, adapter: str) -> str:
    """The lines that load an adapter by PEFT alone."""
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})",
        f"model = PeftModel.from_pretrained(base, {json.dumps(adapter)})",
    ]
    return "\n".join(lines)
