"""Rules in signatures; what a wrong value is told."""

from typing import Annotated, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from manyloom.core.errors import BadInput, Problem, bad, located
from manyloom.core.signature import keys
from manyloom.core.validate import Above, IntOrShare, check, checked, distance, nearest, share_of


@pytest.mark.parametrize(
    ("value", "n", "many"),
    [(10, 4, 10), (0.1, 10, 1), (0.1, 11, 2), (1.0, 7, 7), (1, 7, 1), (2 / 3, 3, 2), (0.3, 10, 3)],
)
def test_int_or_share(value, n, many):
    assert share_of(value, n) == many


@given(st.text(max_size=6), st.text(max_size=6))
def test_distance_is_a_distance(a, b):
    assert distance(a, b) == distance(b, a) <= max(len(a), len(b))
    assert (distance(a, b) == 0) == (a == b)


def test_nearest_never_guesses_wildly():
    assert nearest("lr", ["rounds", "seed"]) is None
    assert nearest("", ["rounds"]) is None
    assert nearest("optimizer", ["optimiser", "momentum"]) == "optimiser"


def test_what_a_wrong_value_is_told():
    wrong = check("rounds", "40", int, "job")
    assert wrong is not None
    assert wrong.text() == (
        "error: rounds must be a whole number\n"
        '  got    rounds = "40" (text) in [job]\n'
        "  mend   write rounds = 40 without quotes"
    )
    assert check("q", 0.0, IntOrShare).code == "out-of-range"
    assert check("q", 0, IntOrShare).code == "out-of-range"
    assert check("q", True, IntOrShare).code == "wrong-type"
    assert check("lr", float("nan"), Annotated[float, Above(0)]).code == "out-of-range"
    assert check("name", "fedprxo", Literal["fedavg", "fedprox"]).mend == 'did you mean "fedprox"?'


def test_all_wrong_arguments_are_told_at_once():
    @checked
    def make(lr: Annotated[float, Above(0)] = 0.1, mu: Annotated[float, Above(0)] = 0.1) -> None: ...

    with pytest.raises(BadInput) as error:
        make(lr=-1.0, mu=0.0)
    assert len(error.value.problems) == 2


def test_errors_carry_five_fields_and_a_place():
    error = located(bad("x", "what is wrong", got="lr = -1", rule="a", mend="b"), "heart.toml, line 3")
    assert (error.code, error.what, error.got, error.rule, error.mend) == ("x", "what is wrong", "lr = -1", "a", "b")
    assert str(error).splitlines()[1].endswith("heart.toml, line 3") and len(str(error).splitlines()[1]) == 80
    assert max(map(len, Problem("x", "word " * 40, got="value " * 40).text().splitlines())) <= 80


def test_every_key_of_every_factory_has_a_meaning():
    from manyloom.algorithms import RECIPES
    from manyloom.server import SERVERS

    for factory in [*RECIPES.values(), *SERVERS.values()]:
        for key in keys(factory).values():
            assert key.meaning, f"{factory.__name__}: {key.name}"
