"""scripts/layers: finds an import that goes up, however it is written, and a room without a floor."""

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "layers"


@pytest.fixture(scope="module")
def layers():
    loader = importlib.machinery.SourceFileLoader("layers_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("layers_script", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def package(root: Path, **code: str) -> Path:
    folder = root / "manyloom"
    for name, text in {"core/__init__": "", "job/__init__": "", "job/plan": ""}.items() | code.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "code",
    [
        "import manyloom.job",
        "from manyloom.job.plan import plan",
        "from manyloom import job",
        "from ..job import plan",
        "import manyloom",
        "def late():\n    from manyloom.job import plan",
    ],
)
def test_an_import_that_goes_up_is_found(layers, tmp_path, code):
    assert len(list(layers.problems(package(tmp_path, **{"core/flat": code})))) == 1


@pytest.mark.parametrize(
    "code", ["from manyloom.core import flat", "from ..core import flat", "from . import plan", "import torch"]
)
def test_downwards_and_sideways_is_fine(layers, tmp_path, code):
    assert list(layers.problems(package(tmp_path, **{"job/loop": code}))) == []


def test_a_room_without_a_floor_is_found(layers, tmp_path):
    (line,) = layers.problems(package(tmp_path, **{"attic/__init__": ""}))
    assert "attic" in line
