"""Adapters over one base: gradients against plain PEFT, sharing, layout, errors, and training."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import manyloom as ml
from manyloom.core.errors import BadInput
from manyloom.core.flat import Layout
from manyloom.core.task import Shape
from manyloom.data.store import Shared
from manyloom.engine.autograd import Autograd
from manyloom.engine.build import fresh
from manyloom.engine.provider import Program
from manyloom.llm import forward
from manyloom.llm.model import LanguageModel, Lora, language_model
from tests.llm.toys import SMOLLM2, bytelevel, llama

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
SHAPE = Shape((3, 16), None)


def rows(n: int = 6, width: int = 16, seed: int = 0, packed: bool = False) -> tuple[Tensor, Tensor]:
    """Random rows: ragged and padded with 40 % of labels masked, or two documents a row."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (n, width), generator=rng)
    places = torch.arange(width).repeat(n, 1)
    labels = torch.cat([ids[:, 1:], torch.full((n, 1), -100)], 1)
    labels = labels.masked_fill(torch.rand(n, width, generator=rng) < 0.4, -100)
    for i in range(n):
        cut = int(torch.randint(width // 2, width - 1, (1,), generator=rng))
        if packed:
            places[i, cut:] -= cut
            labels[i, cut - 1] = -100
        else:
            places[i, cut:] = -1
            ids[i, cut:] = 2
            labels[i, cut - 1 :] = -100
    return torch.stack([ids, places, labels], 1), labels


def federation(x: Tensor, y: Tensor, parts: list[range], test: float = 0.0) -> ml.Federation:
    made = ml.Federation.of_tensors(x, y.clamp_min(0).float(), parts, test=test, target="number")
    assert isinstance(made.store, Shared)
    return replace(made, store=replace(made.store, y=y), target="text")


def job(model: LanguageModel, fed: ml.Federation, rounds: int = 3, **options: Any) -> ml.Job:
    options = {"optimiser": "adamw", "lr": 1e-2, "batch_size": 4, "steps": 4, "clip_grad": 1.0} | options
    return ml.Job(model.task, ml.algorithms.fedavg(**options), fed, rounds=rounds, seed=1)


def plain(base: Path, model: LanguageModel, theta: Tensor) -> Any:
    """The same adapters in a PEFT model made by PEFT's own hand, from a base loaded anew."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=model.template.language_model.dtype)
    lora = model.lora
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(model.spec.names),
                        fan_in_fan_out=model.spec.transposed, task_type="CAUSAL_LM")  # fmt: skip
    tuned = get_peft_model(loaded, config).eval()
    missing, unexpected = tuned.load_state_dict(model.layout.state_dict(theta), strict=False)
    assert not unexpected and not [m for m in missing if "lora_" in m]
    return tuned


def loss_of(tuned: Any, row: Tensor) -> Tensor:
    """The mean loss of one row, without any padding: full logits, one document at a time."""
    ids, places, labels = row
    starts = [*(places == 0).nonzero().flatten().tolist(), int((places >= 0).sum())]
    found, count = torch.zeros((), dtype=tuned.dtype), 0
    for a, b in zip(starts, starts[1:]):
        logits = tuned(input_ids=ids[None, a:b]).logits[0]
        found = found + F.cross_entropy(logits, labels[a:b], ignore_index=-100, reduction="sum")
        count += int((labels[a:b] != -100).sum())
    return found / max(1, count)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("targets", [None, "all-linear"])
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_of_each_client_equal_plain_peft_one_by_one(
    bases: dict[str, Path], kind: str, targets: str | None, packed: bool
) -> None:
    model = language_model(bases[kind], lora=Lora(r=3, alpha=5.0, targets=targets), dtype="float64")
    assert model.packs
    k, b, d = 3, 2, model.layout.d
    theta = 0.2 * torch.randn(k, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x, y = rows(k * b, packed=packed)
    x, y = x.view(k, b, 3, -1), y.view(k, b, -1)
    sizes = model.task.size(y).double()
    w = sizes / sizes.sum(1, keepdim=True)
    provider = Autograd(Program(model.module(), model.layout, model.task.losses))
    provider.program.train(True)
    out = torch.full_like(theta, torch.nan)
    losses = provider.accumulate(theta, x, y, w, out)
    for c in range(k):
        tuned = plain(bases[kind], model, theta[c])
        loss = sum(w[c, i] * loss_of(tuned, x[c, i]) for i in range(b))
        loss.backward()
        got = {n: p.grad for n, p in tuned.named_parameters() if p.grad is not None}
        torch.testing.assert_close(out[c], model.layout.flatten(got), rtol=0, atol=1e-10)
        torch.testing.assert_close(losses[c], loss.detach(), rtol=0, atol=1e-10)
    assert float(out.abs().max()) > 1e-3


def test_a_client_whose_data_changes_leaves_the_others_alone(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"], dtype="float64")
    theta = 0.2 * torch.randn(2, model.layout.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = rows(4)
    other, labels = rows(4, seed=9)
    provider = Autograd(Program(model.module(), model.layout, model.task.losses))
    out, w = torch.zeros(2, 2, model.layout.d).double(), torch.full((2, 2), 0.5).double()
    for i, (mine, want) in enumerate(((x, y), (torch.cat([x[:2], other[2:]]), torch.cat([y[:2], labels[2:]])))):
        provider.accumulate(theta, mine.view(2, 2, 3, -1), want.view(2, 2, -1), w, out[i])
    assert torch.equal(out[0, 0], out[1, 0]) and not torch.equal(out[0, 1], out[1, 1])


def test_the_layout_holds_adapters_alone_each_a_before_its_b(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"], lora=Lora(r=4, alpha=8.0, targets="all-linear"))
    names = model.layout.names
    assert names[:2] == tuple(
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.default.weight" for half in "AB"
    )
    assert names == tuple(n for pair in model.pairs for n in (pair.a, pair.b))
    assert [p.module for p in model.pairs] == list(model.matched) and len(model.matched) == 14
    assert {p.scale for p in model.pairs} == {2.0}
    assert model.spec.names == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    entries = {e.name: e.shape for e in model.layout.entries}
    for pair in model.pairs:
        assert entries[pair.a][0] == entries[pair.b][1] == 4
    assert language_model(bases["gpt2"]).matched == ("transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn")


def test_the_base_is_loaded_once_and_shared_by_every_module(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    loads: list[object] = []
    real = transformers.AutoModelForCausalLM.from_pretrained

    def counted(*args: Any, **kwargs: Any) -> Any:
        loads.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", counted)
    model = language_model(bases["llama"])
    frozen = {n: p.clone() for n, p in model.template.named_parameters() if ".lora_" not in n}
    first = dict(model.template.named_parameters())
    x, y = rows(12)
    result = ml.train(job(model, federation(x, y, [range(6), range(6, 12)], test=0.25), rounds=2))
    for made in (fresh(model.task, SHAPE, 3), copy.deepcopy(model.module()), result.model):
        for name, p in made.named_parameters():
            assert (p.data_ptr() == first[name].data_ptr()) == (".lora_" not in name)
    copy.deepcopy(model.module()).double()  # a cast copy leaves the base as it is
    assert all(torch.equal(first[n], t) and first[n].dtype == torch.float32 for n, t in frozen.items())
    assert len(loads) == 1


def test_first_adapters_follow_from_the_seed_and_b_is_zero(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"])
    one, same, other = (model.layout.flatten(fresh(model.task, SHAPE, s)) for s in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    views = model.layout.views(one)
    for pair in model.pairs:
        a = views[pair.a]
        assert not views[pair.b].any() and 0.9 < float(a.abs().max()) * a.shape[1] ** 0.5 <= 1.0
    double = language_model(bases["llama"], dtype="float64")
    assert torch.equal(double.layout.flatten(fresh(double.task, SHAPE, 3)), one.double())
    begun = model.starting(other)
    assert torch.equal(model.layout.flatten(fresh(begun.task, SHAPE, 3)), other)


def test_training_does_not_change_a_theta_that_was_read_before(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"])
    made = model.module()
    theta = model.layout.flatten(made)
    kept = theta.clone()
    provider = Autograd(Program(made, model.layout, model.task.losses))
    row = theta.clone()[None]
    x, y = rows(2)
    out = torch.zeros_like(row)
    provider.accumulate(row, x[None], y[None], torch.full((1, 2), 0.5), out)
    row -= out
    assert torch.equal(theta, kept)
    assert torch.equal(model.layout.flatten(made), row[0]) and not torch.equal(row[0], kept)


def test_rows_judged_are_sorted_cut_and_put_back(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model(bases["llama"], dtype="float64")
    made = model.module(0.3 * torch.randn(model.layout.d, generator=torch.Generator().manual_seed(1)).double()).eval()
    x, y = rows(9)
    x[4, 2], y[4] = -100, -100  # a row without a label: loss 0
    with torch.no_grad():
        whole = made(x)
        assert float(whole[4].abs().max()) == 0
        monkeypatch.setattr(forward, "TOKENS", 20)
        monkeypatch.setattr(forward, "LOGITS", 1)  # 16 labels a piece
        torch.testing.assert_close(made(x), whole)
    graded = made(x)[:, 0].sum()
    monkeypatch.undo()
    whole_grad = made(x)[:, 0].sum()
    mine = [p for n, p in made.named_parameters() if ".lora_" in n]
    for a, b in zip(torch.autograd.grad(graded, mine), torch.autograd.grad(whole_grad, mine)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for i in range(9):
        if i != 4:
            ids, places, labels = x[i]
            n = int((places >= 0).sum())
            logits = made.language_model(input_ids=ids[None, :n]).logits[0]
            loss = F.cross_entropy(logits, labels[:n], ignore_index=-100)
            hit = (logits.argmax(-1) == labels[:n])[labels[:n] != -100].double().mean()
            torch.testing.assert_close(whole[i], torch.stack([loss, hit]).detach())


def test_a_model_that_can_be_read_only_as_a_whole_gives_the_same(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"], dtype="float64")
    assert model.template.reads == (True, True, True)
    x, _ = rows(4)
    made = model.module()
    want = made(x)
    made.reads = made.reads._replace(split=False)
    torch.testing.assert_close(made(x), want)
    made.reads = made.reads._replace(positions=False)
    torch.testing.assert_close(made(x), want)


def test_dropout_of_the_base_is_switched_off_and_said(bases: dict[str, Path]) -> None:
    model = language_model(bases["gpt2"])
    assert any("dropout of the base set to 0" in note and "attn_pdrop" in note for note in model.notes)
    made, (x, _) = model.module().train(), rows(3)
    assert torch.equal(made(x), made(x))
    assert not any("dropout" in note for note in language_model(bases["llama"]).notes)


def test_a_half_precision_base_has_float32_adapters_and_losses(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"], dtype="bfloat16")
    assert model.layout.dtype == torch.float32
    x, _ = rows(3)
    out = model.module()(x)
    assert out.dtype == torch.float32
    close = language_model(bases["llama"]).module()(x)
    torch.testing.assert_close(out[:, 0], close[:, 0], rtol=0.02, atol=0)


def test_the_digest_follows_tensors_tokenizer_and_template_alone(bases: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = bytelevel(SMOLLM2)
    here = language_model(bases["llama"])
    assert language_model(bases["llama"], dtype="float64").base_digest == here.base_digest
    assert language_model(bases["llama"], template=SMOLLM2).base_digest != here.base_digest
    moved = tmp_path / "moved"
    here.tokenizer.save_pretrained(moved)
    same = llama(tokenizer)
    same.save_pretrained(moved)
    assert language_model(moved).base_digest == here.base_digest
    with torch.no_grad():
        same.model.norm.weight[0] += 1e-3
    same.save_pretrained(moved)
    assert language_model(moved).base_digest != here.base_digest


@pytest.mark.parametrize(
    "targets, near",
    [(["q_pro", "v_proj"], "q_proj"), (["k_projj"], "k_proj"), (["self_attn"], "linear"), (["c_attn"], "")],
)
def test_a_target_that_matches_nothing_is_an_error(bases: dict[str, Path], targets: list[str], near: str) -> None:
    with pytest.raises(BadInput) as caught:
        language_model(bases["llama"], lora=Lora(targets=targets))
    assert caught.value.code == "unknown-target" and near in str(caught.value)
    assert "q_proj" in (caught.value.rule or "")


def test_wrong_settings_and_folders_are_told(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="r must be at least 1"):
        Lora(r=0)
    with pytest.raises(BadInput, match='did you mean "fedavg"'):
        Lora(combine="fedavgg")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadInput, match="float32"):
        language_model(bases["llama"], dtype="float")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput) as caught:
        language_model(tmp_path / "empty")
    assert caught.value.code == "base-missing" and str(tmp_path) not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_an_error(bases: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(bytelevel(SMOLLM2))
    llama(tokenizer).save_pretrained(tmp_path)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BadInput) as caught:
        language_model(tmp_path)
    assert caught.value.code == "vocabulary-mismatch"


def test_four_clients_train_and_every_loss_falls(bases: dict[str, Path], tmp_path: Path) -> None:
    model = language_model(bases["llama"], lora=Lora(r=4, targets="all-linear"))
    x = torch.zeros(48, 3, 16, dtype=torch.int64)
    for i in range(48):  # each client counts with a step of its own
        x[i, 0] = (torch.arange(16) * (i // 12 + 1) + 7 * i) % 32 + 40
        x[i, 1] = torch.arange(16)
        x[i, 2] = torch.cat([x[i, 0, 1:], torch.tensor([-100])])
    fed = federation(x, x[:, 2].clone(), [range(12 * c, 12 * c + 12) for c in range(4)], test=0.25)
    events = list(ml.run(job(model, fed, rounds=3, lr=2e-2, steps=8), home=tmp_path))
    judged = [e for e in events if e.type == "evaluated"]
    for client in range(4):
        losses = [e.clients[client]["loss"] for e in judged]
        assert len(losses) == 4 and losses[-1] < losses[0] - 0.01  # a frozen random head allows little
    assert judged[-1].metrics["perplexity"] == pytest.approx(np.exp(judged[-1].metrics["loss"]))


def test_a_prompt_is_answered(bases: dict[str, Path]) -> None:
    model = language_model(bases["llama"], prompts=["hello"])
    made = model.module()
    said = model.say(made, model.prompts[0], 4)
    assert isinstance(said, str) and made.training
    assert said == model.say(made, "hello", 4)


def test_layout_of_a_fresh_module_is_the_models(bases: dict[str, Path]) -> None:
    model = language_model(bases["gpt2"])
    assert Layout.of(fresh(model.task, SHAPE, 0)) == model.layout
