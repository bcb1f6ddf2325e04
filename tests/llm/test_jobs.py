"""Jobs that tune a language model: TOML to adapter, every rule, secure, private, resumed; plain peft loads the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import manyloom as ml
from manyloom.core.errors import BadInput
from manyloom.job.events import Adapter, Combined, RoundDone, RunDone, Tokens

# peft asks for it
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
RULES = ("svd", "fedavg", "ffa", "rolora")


@pytest.fixture(scope="module")
def folder(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clinics' chats beside a tiny base."""
    place = tmp_path_factory.mktemp("clinics")
    (place / "base").symlink_to(bases["llama"])
    (place / "texts").mkdir()
    for k in range(4):
        rows = [
            [{"role": "user", "content": f"case {i}?"}, {"role": "assistant", "content": f"ward {k}, bed {i % 3}."}]
            for i in range(8 + k)
        ]
        text = "\n".join(json.dumps({"messages": r}) for r in rows)
        (place / "texts" / f"clinic{k}.jsonl").write_text(text)
    return place


def write(folder: Path, name: str = "job", more: str = "", **over: dict[str, object]) -> Path:
    tables: dict[str, dict[str, object]] = {
        "job": {"rounds": 3},
        "data": {"source": "jsonl", "path": "texts", "length": 64},
        "model": {"name": "causal-lm", "base": "base"},
        "lora": {"r": 2},
        "algorithm": {"steps": 2, "lr": 0.01},
    }
    for table, keys in over.items():
        tables[table] = {**tables.get(table, {}), **keys}
    lines = [f"[{t}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items()) for t, keys in tables.items()]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + more)
    return path


def events(job: ml.Job, home: Path) -> list[Any]:
    return list(ml.run(job, home=home))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_from_toml_to_a_peft_adapter(rule: str, folder: Path, tmp_path: Path) -> None:
    job = ml.Job.from_toml(str(write(folder, rule, lora={"combine": rule})))
    plan = ml.plan(job)
    found = events(job, tmp_path)
    done = next(e for e in found if isinstance(e, RunDone))
    assert done.status == "done" and set(done.final) == {"loss", "perplexity", "token_accuracy"}
    rounds = [e for e in found if isinstance(e, RoundDone)]
    evens = plan.bytes["up"] if rule != "rolora" else sum(e.bytes_up for e in rounds)
    assert sum(e.bytes_up for e in rounds) == evens
    combined = [e for e in found if isinstance(e, Combined)]
    assert [e.exact for e in combined] == [rule in ("ffa", "rolora")] * 3
    errors = [e.agg_error_mean for e in combined]
    assert errors == [0.0] * 3 if rule in ("ffa", "rolora") else all(e is not None and 0 < e < 1.5 for e in errors)
    adapter = next(e for e in found if isinstance(e, Adapter))
    assert adapter.combine == rule and adapter.matched == 4 and adapter.scale == 8.0
    assert [e.rows for e in found if isinstance(e, Tokens)] == job.federation.sizes.tolist()

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = ml.load  # the run's folder holds an ordinary adapter
    assert run is not None
    place = done.result.folder / "adapter"
    text = (place / "README.md").read_text() + (place / "adapter_config.json").read_text()
    assert str(folder) not in text and adapter.base_digest in text
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), str(place)).eval()
    ids = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    ours = done.result.model.language_model
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-5)


def test_ffa_sends_b_alone_and_leaves_a(folder: Path, tmp_path: Path) -> None:
    job = ml.Job.from_toml(str(write(folder, "ffa", lora={"combine": "ffa"})))
    done = events(job, tmp_path)[-1]
    fresh = ml.llm.language_model(str(folder / "base"), lora=ml.llm.Lora(r=2))
    both = fresh.layout.d
    assert (
        sum(e.size for e in fresh.layout.entries if ".lora_B." in e.name) * 4 * 4 + 4 * 12
        == done.result.history[0]["bytes_up"]
    )
    assert done.result.history[0]["bytes_up"] < 4 * 4 * both
    from manyloom.engine.build import fresh as start
    from manyloom.job.job import shape_of

    first = dict(start(job.task, shape_of(job.federation), job.seed).named_parameters())
    last = dict(done.result.model.named_parameters())
    for name, p in first.items():
        assert torch.equal(p, last[name]) == (".lora_B." not in name)


def test_rolora_trains_b_then_a_and_sends_one(folder: Path, tmp_path: Path) -> None:
    job = ml.Job.from_toml(str(write(folder, "rolora", lora={"combine": "rolora"})))
    rounds = [e for e in events(job, tmp_path) if isinstance(e, RoundDone)]
    theta = [e.state.server["theta"] for e in rounds if e.state is not None]
    layout = ml.llm.language_model(str(folder / "base"), lora=ml.llm.Lora(r=2)).layout
    a, b = layout.mask(["*.lora_A.*"]), layout.mask(["*.lora_B.*"])
    assert torch.equal(theta[1][b], theta[0][b]) and not torch.equal(theta[1][a], theta[0][a])
    assert torch.equal(theta[2][a], theta[1][a]) and not torch.equal(theta[2][b], theta[1][b])
    assert [e.bytes_up for e in rounds] == [4 * 4 * (int(m.sum()) + 3) for m in (b, a, b)]


def test_a_secure_sum_of_adapters_is_the_plain_one(folder: Path, tmp_path: Path) -> None:
    more = {"job": {"rounds": 2, "quorum": 1.0}}
    plain = ml.Job.from_toml(str(write(folder, "plain", lora={"combine": "rolora"}, **more)))
    secure = ml.Job.from_toml(str(write(folder, "secure", "\n[secure]\nrange = 1.0\n", **more)))
    assert secure.algorithm.tables["lora"]["combine"] == "rolora"
    theta = [events(j, tmp_path)[-1].state.server["theta"] for j in (plain, secure)]
    assert torch.allclose(theta[0], theta[1], atol=2e-5) and not torch.equal(theta[0], theta[1])


def test_under_a_claim_only_b_travels_and_has_a_guarantee(folder: Path, tmp_path: Path) -> None:
    private = "\n[privacy]\nclip = 1.0\nnoise_multiplier = 0.5\n"
    with pytest.raises(BadInput, match="promises nothing"):  # four clients hide nobody
        ml.Job.from_toml(str(write(folder, "few", private)))
    parts = '\n[partition]\nscheme = "iid"\nclients = 8\n'
    job = ml.Job.from_toml(str(write(folder, "private", private + parts, data={"path": "texts/clinic*.jsonl"})))
    assert job.algorithm.tables["lora"]["combine"] == "ffa" and job.algorithm.weights == "uniform"
    done = events(job, tmp_path)[-1]
    assert done.status == "done" and done.result.guarantee.epsilon > 0


@pytest.mark.parametrize(("more", "over", "said"), [
    ("\n[secure]\n", {"lora": {"combine": "svd"}}, 'rolora'),
    ("\n[aggregate]\nrule = \"median\"\n", {"lora": {"combine": "svd"}}, 'rolora'),
    ("\n[server]\nname = \"adam\"\n", {}, 'combine = "fedavg"'),
    ("", {"algorithm": {"name": "scaffold", "optimiser": "sgd"}}, 'combine = "fedavg"'),
    ("\n[downlink]\nuniform = 8\n", {}, "leave [downlink] out"),
    ("", {"lora": {"targets": ["q_prj"]}}, "q_proj"),
    ("", {"model": {"loss": "mse"}}, "leave loss out"),
    ("", {"data": {"length": 4}}, "length"),
    ("", {"model": {"base": "nowhere/at-all"}}, "nowhere"),
])  # fmt: skip
def test_mixes_that_would_not_do(more: str, over: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(BadInput) as error:
        ml.Job.from_toml(str(write(folder, "wrong", more, **over)))
    assert said in "\n".join(p.text() for p in error.value.problems)


def test_resumed_it_goes_on_bit_for_bit_and_knows_its_base(folder: Path, tmp_path: Path) -> None:
    job = ml.Job.from_toml(str(write(folder, "again", lora={"combine": "rolora"}, job={"rounds": 4})))
    whole = events(job, tmp_path / "a")[-1]
    rounds = 0

    def stop() -> bool:
        nonlocal rounds
        rounds += 1
        return rounds == 1  # in A's turn

    cut = list(ml.run(job, home=tmp_path / "b", stop=stop))[-1]
    assert cut.status == "interrupted"
    again = list(ml.session.resume(cut.result.run_id, home=tmp_path / "b"))[-1]
    assert torch.equal(again.state.server["theta"], whole.state.server["theta"])
    toml = (cut.result.folder / "job.toml").read_text()
    assert ml.Job.from_toml(str(cut.result.folder / "job.toml"), base=str(folder)).digest == job.digest
    wrong = toml.replace('base_digest = "', 'base_digest = "0')
    (folder / "changed.toml").write_text(wrong)
    with pytest.raises(BadInput, match="another than this job"):
        ml.Job.from_toml(str(folder / "changed.toml"))
