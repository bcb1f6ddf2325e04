"""The report of a distillation says what was told, and nothing of gradients."""

from __future__ import annotations

import re
from pathlib import Path

import manyloom as ml
from manyloom.job.events import RunDone
from manyloom.track.report import write

TOML = """
[job]
kind = "vertical"
rounds = 2
[data]
source = "breast-cancer"
[model]
name = "split-mlp"
[algorithm]
name = "distil"
steps = 5
teacher_steps = 20
"""


def test_what_is_said_of_a_teacher(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(TOML)
    done = list(ml.run(ml.Job.from_toml(str(tmp_path / "job.toml")), home=tmp_path))[-1]
    assert isinstance(done, RunDone)
    page = re.sub(r"<(script|style)[\s\S]*?</\1>|<[^>]+>", " ", write(done.result.folder).read_text())
    said = re.sub(r"\s+", " ", page)
    assert "Clinic taught lab by what it says of 456" in said and "soft labels" in said
    assert "Leak meter" not in said and "gradient" not in said and "embeddings" not in said
