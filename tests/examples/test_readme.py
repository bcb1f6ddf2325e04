"""The README: its Python runs as it stands, its commands and links exist."""

import re
from pathlib import Path

import pytest

import manyloom

ROOT = Path(__file__).parents[2]
TOP = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*TOP, *(ROOT / "examples").rglob("*.md"), *(ROOT / "docs").glob("*.md")]


def test_the_session_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MANYLOOM_HOME", str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert "refused" in said and "round" in said
    assert sum(p.numel() for p in names["model"].parameters()) == 2410  # type: ignore[attr-defined]
    assert len(names["event"].result.history) == 30  # type: ignore[attr-defined]
    assert names["event"].result.final["accuracy"] > 0.75  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", page.read_text()):
        link = target[0] or target[1]
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_commands_of_the_readme_are_verbs():
    from manyloom.cli.app import VERBS

    said = set(re.findall(r"(?:`|^|next +)manyloom ([a-z]+)\b", (ROOT / "README.md").read_text(), re.M))
    assert len(said) > 5 and said <= set(VERBS)


def test_the_changelog_has_this_version():
    assert f"## {manyloom.__version__}" in (ROOT / "CHANGELOG.md").read_text()
