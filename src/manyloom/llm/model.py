"""A language model to be tuned by a federation: one frozen base, adapters as theta."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from manyloom.core.errors import bad
from manyloom.core.flat import Layout
from manyloom.core.task import Task
from manyloom.core.tensors import torch_seeded
from manyloom.llm.adapters import Lora, Pair, library, pairs_of, targets_of
from manyloom.llm.base import load_base
from manyloom.llm.forward import NONE, Adapted, probe

SERIAL = "adapters share one frozen base, which is not copied for each client"


class Spec(NamedTuple):
    """What a saved adapter says of itself and of its base."""

    base: str
    digest: str
    lora: Lora
    names: tuple[str, ...]
    paths: tuple[str, ...]
    transposed: bool
    dtype: str


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A base with adapters, as a federated job takes it.

    `task` goes into the job; `layout` is theta's: the adapters alone, each module's A and B in the base's order.
    """

    name: str
    lora: Lora
    tokenizer: Any
    task: Task
    layout: Layout
    pairs: tuple[Pair, ...]
    base_digest: str
    matched: tuple[str, ...]
    packs: bool  # documents packed into one row don't see each other
    notes: tuple[str, ...]
    prompts: tuple[str, ...]
    template: Adapted  # never trained: what modules are copied from

    def __repr__(self) -> str:
        return f"LanguageModel({self.name}, {len(self.pairs)} adapters of rank {self.lora.r}, {self.layout.d} numbers)"

    @property
    def spec(self) -> Spec:
        """What a saved adapter says of itself."""
        return cast(Spec, self.template.spec)

    def module(self, theta: Tensor | None = None) -> Adapted:
        """A module over the shared base, with these adapters, or with fresh ones."""
        made = cast(Adapted, self.task.module())
        if theta is not None:
            self.layout.load(made, theta)
        return made

    def starting(self, theta: Tensor) -> LanguageModel:
        """The same model, whose first adapters are these, theta [d], whatever the job's seed."""
        return replace(self, task=replace(self.task, module=_factory(self.template, self.layout, theta.clone())))

    @torch.no_grad()
    def say(self, module: nn.Module, prompt: str, tokens: int = 48) -> str:
        """What a module answers to a prompt, greedily; with a chat template the prompt is a user's turn."""
        made, tok = cast(Adapted, module), self.tokenizer
        if tok.chat_template:
            turn = [{"role": "user", "content": prompt}]
            text = tok.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            ids = tok(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tok(prompt)["input_ids"]
        device = next(made.parameters()).device
        was = made.training
        made.eval()
        x = torch.tensor([ids], device=device)
        given = x.shape[1]
        for _ in range(tokens):
            logits = made.language_model(input_ids=x, use_cache=False).logits[0, -1]
            token = logits.argmax().view(1, 1)
            if int(token) == tok.eos_token_id:
                break
            x = torch.cat([x, token], 1)
        made.train(was)
        return cast(str, tok.decode(x[0, given:], skip_special_tokens=True))


def language_model(
    base: str,
    *,
    lora: Lora | None = None,
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32",
    template: str | None = None,
    prompts: Sequence[str] = (),
    base_digest: str | None = None,
) -> LanguageModel:
    """A causal language model with adapters; the base is loaded here, once.

    Args:
        base: a folder with config.json, *.safetensors and a tokenizer; or a name on the hub.
        lora: the adapters.
        dtype: of the frozen base; adapters are float32 (float64 over a float64 base).
        template: a chat template in place of the tokenizer's.
        prompts: what it is asked before and after, to be shown.
        base_digest: of the base's tensors, tokenizer and template; another base is refused.

    Raises:
        BadInput: `extra-missing`, `base-missing`, `vocabulary-mismatch`, `unknown-target`, `bad-value`.
    """
    lora = Lora() if lora is None else lora
    loaded = load_base(base, dtype, template)
    if base_digest is not None and base_digest != loaded.digest:
        raise bad("base-changed", f"the base model {loaded.name} is another than this job was made with",
                  got=f"base_digest {loaded.digest[:12]}, the job says {base_digest[:12]}",
                  rule="adapters belong to one base, to the last bit",
                  mend="give the folder it was made with, or leave base_digest out for a new job")  # fmt: skip
    model = loaded.model
    found = targets_of(model, lora.targets, model.get_output_embeddings())
    reads = probe(model)
    peft = library("peft")
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(found.paths),
        fan_in_fan_out=found.transposed,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch_seeded(0):  # its first values are drawn again for each job
        tuned = peft.LoraModel(model, config, "default")
    spec = Spec(loaded.name, loaded.digest, lora, found.names, found.paths, found.transposed, dtype)
    adapted = Adapted(tuned, reads, spec)
    mine = adapted.adapters()
    for p in adapted.parameters():
        p.requires_grad_(False)
    for p in mine.values():
        p.data = p.data.to(torch.promote_types(p.dtype, torch.float32))  # also over a half-precision base
        p.requires_grad_(True)
    layout = Layout.of(adapted)
    pairs = pairs_of(layout, lora.scale)
    if [p.module for p in pairs] != list(found.paths) or len(layout.entries) != 2 * len(pairs):
        raise bad("unknown-target", "PEFT put adapters on other modules than were named",
                  got=", ".join(p.module for p in pairs)[:160], rule=", ".join(found.paths)[:160])  # fmt: skip
    task = Task(
        _factory(adapted, layout, None),
        loss=mean_loss,
        metrics=("perplexity", "token_accuracy"),
        size=labels_of,
        serial=SERIAL,
        name="causal-lm",
    )
    return LanguageModel(
        loaded.name,
        lora,
        loaded.tokenizer,
        task,
        layout,
        pairs,
        loaded.digest,
        found.paths,
        reads.packs,
        loaded.notes,
        tuple(prompts),
        adapted.eval(),
    )


def mean_loss(output: Tensor, y: Tensor) -> Tensor:
    """The loss of each row [N]: the first column of what the module puts out."""
    return output[:, 0]


def labels_of(y: Tensor) -> Tensor:
    """What each row of labels [N, T] counts: how many there are."""
    return (y != NONE).sum(-1)


def _factory(template: Adapted, layout: Layout, start: Tensor | None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made = copy.deepcopy(template).train()
        if start is None:
            return made.start()
        layout.load(made, start)
        return made

    return make
