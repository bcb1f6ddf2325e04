"""No record of a client is in anything a run leaves behind: a search for the bytes, with a planted leak as control."""

import struct
from pathlib import Path

import numpy as np
import pytest

import manyloom as ml

ODD = 8437.2109375  # exact in float32; one patient's value in one column


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    rows = [f"{'ab'[i % 2]},{rng.normal():.6f},{ODD if i == 7 else rng.normal():.7f},{i % 3 % 2}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("site,x,y,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "job.toml").write_text(
        '[job]\nrounds = 2\n[data]\nsource = "csv"\npath = "rows.csv"\nlabel = "label"\nkey = "site"\n'
        '[model]\nname = "logistic"\n'
    )
    return tmp_path


def found(folder: Path) -> list[str]:
    """Files that hold the value as text or as a float of either size."""
    signs = [b"8437.21", struct.pack("<f", ODD), struct.pack("<d", ODD)]
    return [p.name for p in folder.rglob("*") if p.is_file() and any(s in p.read_bytes() for s in signs)]


def test_a_run_keeps_no_record(table: Path):
    job = ml.Job.from_toml(str(table / "job.toml"))
    result = ml.train(job, progress=None, home=table / "home")
    result.report()
    result.card()
    assert len(list(result.folder.rglob("*"))) > 10 and found(table / "home") == []
    (result.folder / "leak.json").write_text(f'{{"row": [{ODD}]}}')
    assert found(table / "home") == ["leak.json"]
