"""Four clinics tune one adapter, in a small form: every held-out loss falls, no text leaves its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.llm_clinics.__main__ import main

pytest.importorskip("peft")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[float, float]]]:
    place = tmp_path_factory.mktemp("clinics")
    with pytest.MonkeyPatch.context() as m:
        m.chdir(place)
        m.delenv("MANYLOOM_HOME", raising=False)
        said = main(["--folder", "here", "--rows", "20", "--steps", "60", "job.rounds=2", "algorithm.steps=5"])
    return place, said


def test_every_held_out_loss_falls(run: tuple[Path, dict[str, tuple[float, float]]]) -> None:
    _, losses = run
    assert set(losses) == {"cardiology", "children", "laboratory", "pharmacy"}
    assert all(after < before - 0.3 for before, after in losses.values())


def test_no_text_is_in_the_run_but_the_jobs_own_prompt(run: tuple[Path, dict[str, tuple[float, float]]]) -> None:
    place, _ = run
    found = b"".join(p.read_bytes() for p in (place / ".manyloom").rglob("*") if p.is_file())
    texts = [json.loads(line)["messages"][1]["content"] for f in (place / "here" / "texts").iterdir()
             for line in f.read_text().splitlines()]  # fmt: skip
    assert len(texts) == 80 and not [t for t in texts if t.encode() in found]
    assert b"Write the note: age 61, chest pain" in found
    assert list((place / ".manyloom").rglob("adapter_model.safetensors"))
