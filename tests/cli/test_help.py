"""Help, version, schemas: at once, without torch, in 80 columns, and only of what exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, Literal, get_args, get_origin

import jsonschema
import pytest

from manyloom.cli.app import SCHEMAS, VERBS
from tests.cli.conftest import WRITE, Cli, environment, golden, narrow, valid

CHECK = """
import sys
from manyloom.cli.app import VERBS, entry
calls = [[verb, "--help"] for verb in VERBS] if sys.argv[1:] == ["every"] else [sys.argv[1:]]
codes = [entry(call) for call in calls]
heavy = {"torch", "numpy", "sklearn", "scipy", "pandas", "pyarrow", "rich"} & set(sys.modules)
assert not heavy, heavy
sys.exit(max(codes))
"""


def light(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A call that must not import what is heavy."""
    return subprocess.run([sys.executable, "-c", CHECK, *args], env=environment(**env), capture_output=True, text=True,
                          timeout=60)  # fmt: skip


def test_overview() -> None:
    ran = light()
    assert (ran.returncode, ran.stderr) == (0, "")
    golden("overview", ran.stdout)
    narrow(ran.stdout)


def test_no_help_imports_torch(here: Cli) -> None:
    ran = light("every")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "".join(here(verb, "--help").out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str, here: Cli) -> None:
    ran = here(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    golden(f"help-{verb}", ran.out)
    narrow(ran.out)
    mentioned = set(re.findall(r"manyloom ([a-z]+)", ran.out))
    assert mentioned <= set(VERBS)


def test_version_needs_no_torch() -> None:
    ran = light("--version")
    assert re.fullmatch(r"manyloom \d+\.\d+\.\d+\n", ran.stdout)


def test_the_overview_as_json(here: Cli) -> None:
    assert here("--help").out == here().out
    valid(here("--json").json)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_schema_and_prints_it(verb: str, here: Cli) -> None:
    ran = here(verb, "--schema")
    assert ran.code == 0
    schema = json.loads(ran.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == f"manyloom.{verb}/1"
    assert {"schema", "ok", "next"} <= set(schema["required"])


def test_no_schema_without_a_verb() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {*VERBS, "error", "overview"}


def complete(*words: str) -> list[str]:
    """What a shell is offered after these words."""
    ran = light(_MANYLOOM_COMPLETE="complete_bash", COMP_WORDS="\n".join(["manyloom", *words]),
                COMP_CWORD=str(len(words)))  # fmt: skip
    return ran.stdout.split()


def test_completion_offers_verbs_flags_and_jobs() -> None:
    assert "resume" in complete("re")
    assert "--baselines" in complete("run", "--ba")
    assert "heart" in complete("run", "he")


def test_completion_offers_keys_of_the_job_and_names_of_parts() -> None:
    assert {"algorithm.lr=", "algorithm.lr_schedule="} <= set(complete("run", "heart", "algorithm.lr"))
    assert "algorithm.name=scaffold" in complete("plan", "heart", "algorithm.name=s")


def choices(hint: Any) -> list[str]:
    """The texts that a type hint allows by name."""
    if get_origin(hint) is Literal:
        return [x for x in get_args(hint) if isinstance(x, str)]
    return [x for a in get_args(hint) for x in choices(a)]


def test_the_keys_that_completion_knows_are_those_of_a_job() -> None:
    """They lie in a file, because reading them from the parts would import torch."""
    from manyloom.job.tables import TABLES

    known: dict[str, list[str]] = {}
    for table in TABLES.values():
        for key in table.known().values():
            names = [*table.names] if key.name == table.choice else choices(key.hint)
            known[f"{table.name}.{key.name}"] = names
    path = SCHEMAS.parent / "keys.json"
    if WRITE:
        path.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    assert json.loads(path.read_text("utf-8")) == known


def test_common_flags_may_stand_before_the_verb(here: Cli) -> None:
    assert here("--json", "runs").json == here("runs", "--json").json
