"""A tuned model as a user meets it: planned, loaded again, refused as a predictor, asked again where a run stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import manyloom as ml
from manyloom.cli.app import entry
from manyloom.core.errors import BadInput
from manyloom.job.events import RunDone, Sample
from manyloom.track.adapter import SavedAdapter
from manyloom.track.model import load_model
from tests.llm.test_jobs import write

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
SCHEMA = Path(__file__).parents[2] / "src" / "manyloom" / "cli" / "schemas" / "plan.json"


@pytest.fixture(scope="module")
def folder(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clinics' chats beside a tiny base."""
    place = tmp_path_factory.mktemp("clinics")
    (place / "base").symlink_to(bases["llama"])
    (place / "texts").mkdir()
    for k in range(4):
        rows = [[{"role": "user", "content": f"case {i}?"}, {"role": "assistant", "content": f"ward {k}, bed {i % 3}."}]
                for i in range(8)]  # fmt: skip
        (place / "texts" / f"clinic{k}.jsonl").write_text("\n".join(json.dumps({"messages": r}) for r in rows))
    return place


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDone:
    """A run that learns too little to say one token more, and is stopped for it."""
    job = {"rounds": 6, "patience": 2, "watch": "token_accuracy"}
    more = {"job": job, "algorithm": {"steps": 2, "lr": 1e-4}, "lora": {"combine": "ffa"}}
    made = ml.Job.from_toml(str(write(folder, "shown", model={"prompts": ["case 1?"]}, **more)))
    found = list(ml.run(made, home=tmp_path_factory.mktemp("home")))
    said = [e for e in found if isinstance(e, Sample)]
    assert [e.round for e in said] == [0, found[-1].state.round], "asked before and at the end, also of a stopped run"
    return found[-1]


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(BadInput) as error:
        call()
    return error.value.problems[0]


def test_a_run_is_loaded_as_its_tuned_model(done: RunDone) -> None:
    assert done.status == "stopped"
    saved = ml.load(done.result.folder)
    assert isinstance(saved, SavedAdapter)
    assert repr(saved) == f"SavedAdapter({done.result.run_id}: adapter of rank 2 over tiny-llama, 192 parameters)"
    want = dict(done.result.model.named_parameters())
    have = dict(saved.module.named_parameters())
    assert want.keys() == have.keys() and all(torch.equal(have[n], p) for n, p in want.items())
    assert not saved.module.training


def test_the_best_round_is_another_model(done: RunDone) -> None:
    best = done.state.record["best_round"]
    assert 0 < best < done.state.round
    saved = load_model(done.result.folder, "best")
    assert isinstance(saved, SavedAdapter) and saved.theta is not None
    last, first = (dict(m.module.named_parameters()) for m in (load_model(done.result.folder), saved))
    b = [n for n in last if ".lora_B." in n]
    assert all(not torch.equal(last[n], first[n]) for n in b)
    assert torch.equal(torch.cat([first[n].flatten() for n in b]), saved.theta)


def test_rows_are_refused_with_the_lines_that_load_it(done: RunDone) -> None:
    saved: Any = ml.load(done.result.folder)
    problem = refused(lambda: saved.predict("rows.csv"))
    assert problem.code == "model-input" and "PeftModel.from_pretrained" in str(problem.mend)


def test_a_base_gone_or_another_is_said(done: RunDone, bases: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(done.result.folder, place)
    info = json.loads((place / "model.json").read_text())
    (place / "model.json").write_text(json.dumps(info | {"job_base": str(tmp_path)}))
    moved: Any = ml.load(place)
    assert refused(lambda: moved.module).code == "base-missing"
    assert refused(lambda: moved.over(bases["gpt2"])).code == "base-changed"
    assert moved.over(bases["llama"]).language_model is not None
    weights = place / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert refused(lambda: ml.load(place)).code == "model-damaged"
    weights.unlink()
    assert refused(lambda: ml.load(place)).code == "model-missing"


def test_a_plan_says_base_adapters_and_rule(folder: Path) -> None:
    plan = ml.plan(ml.Job.from_toml(str(write(folder, "planned", lora={"combine": "rolora"}))))
    said = " ".join(str(plan).split())
    assert "model causal-lm over tiny-llama, 4 adapters of rank 2: 448 of 44 192 parameters" in said
    assert "on q_proj and v_proj; base float32" in said and "combined by rolora: B and A" in said
    assert "count by their supervised" in said and "noise on the mean" not in said and not plan.warnings
    part = json.loads(SCHEMA.read_text())["properties"]["model"]
    jsonschema.validate(json.loads(json.dumps(plan.model)), part)


@pytest.mark.parametrize(("z", "loud"), [(0.5, False), (2.0, True)])
def test_a_private_plan_says_how_long_the_noise_is(z: float, loud: bool, folder: Path) -> None:
    more = f'\n[privacy]\nclip = 1.0\nnoise_multiplier = {z}\n\n[partition]\nscheme = "iid"\nclients = 12\n'
    plan = ml.plan(ml.Job.from_toml(str(write(folder, "private", more, data={"path": "texts/clinic*.jsonl"}))))
    ratio = plan.model["adapter"]["noise_ratio"]
    assert ratio == pytest.approx(z * 192**0.5 / 12)  # d of B alone, all 12 clients
    assert f"noise on the mean: {ratio:.2g} times" in str(plan)
    assert any("little can be learned" in w for w in plan.warnings) == loud


def test_the_verb_predict_refuses_a_table(done: RunDone, capsys: pytest.CaptureFixture[str]) -> None:
    home = done.result.folder.parents[1]
    code = entry(["predict", done.result.run_id, "rows.csv", "--home", str(home)])
    said = capsys.readouterr().err
    assert code == 2 and "tuned a language model" in said and "from peft import PeftModel" in said
