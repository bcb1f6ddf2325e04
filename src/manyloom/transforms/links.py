"""`[uplink]` and `[downlink]`: transforms put together in the one order that is sound, and the mixes that are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from manyloom.core.errors import BadInput, Problem
from manyloom.core.parts import Transform
from manyloom.core.validate import Above, Within, checked, listed, share_of, show
from manyloom.transforms import quantise, sparsify
from manyloom.transforms.chain import chain
from manyloom.transforms.clip import clip as clipped
from manyloom.transforms.eden import eden as rotated
from manyloom.transforms.feedback import error_feedback as remembered

Levels = Annotated[int | None, Within(1, 127)]
Bits = Annotated[int | None, Within(1, 8)]
Part = Annotated[float | None, Above(0), Within(0, 1)]
FEEDBACK = "error_feedback = true in [uplink]"


@checked
def uplink(
    clip: Annotated[float | None, Above(0)] = None,
    top_k: Part = None,
    random_k: Part = None,
    error_feedback: bool = False,
    qsgd: Levels = None,
    eden: Bits = None,
    uniform: Bits = None,
    *,
    names: tuple[str, ...] = ("u",),
    d: int | None = None,
    private: bool = False,
    secure: bool = False,
) -> Transform:
    """What happens to an update on its way up: u -> clip -> [error feedback around] sparsify -> quantise.

    Without error feedback every compressor but top_k is unbiased. Inside it each is scaled by least squares: there it
    must be near, not right on average.

    Args:
        clip: largest L2 norm of an update, without a privacy claim.
        top_k: share of the coordinates that is sent, the largest; places and values, 8 bytes each.
        random_k: share of the coordinates that is sent, drawn at random; values, 4 bytes each.
        error_feedback: what was not sent is added to the next update; needs clients' memory.
        qsgd: levels on each side of zero, of the norm.
        eden: bits a coordinate after a random rotation.
        uniform: bits a coordinate, between least and largest.
        names: the slots that are vectors of an update; the others pass as they are.
        d: their length, where it is known.
        private: beside [privacy].
        secure: beside [secure].

    Raises:
        BadInput: "contradiction", "error-feedback", "compression-beside-sum", "clipped-twice".

    >>> uplink(top_k=0.01, eden=4, error_feedback=True).name
    'error_feedback(top_k, eden)'
    """
    sparse = {"top_k": top_k, "random_k": random_k}
    fine = {"qsgd": qsgd, "eden": eden, "uniform": uniform}
    wrong = [*_choices("uplink", sparse, fine)]
    if error_feedback and not _given(sparse | fine):
        wrong.append(Problem("error-feedback", "error_feedback has nothing to feed back", FEEDBACK,
                             rule="it adds what a compressor left out to the next update",
                             mend="add top_k = 0.01, or set error_feedback = false"))  # fmt: skip
    wrong += _beside(clip, error_feedback, {**sparse, **fine}, private, secure)
    if wrong:
        raise BadInput(*wrong)
    steps = _compressors(sparse, fine, names, d, biased=error_feedback, shared=private or secure)
    if error_feedback:
        steps = [remembered(chain(*steps), names)]
    table = {"clip": clip, **sparse, "error_feedback": error_feedback or None, **fine}
    return _named(chain(*([clipped(clip, names)] if clip is not None else []), *steps), table)


@checked
def downlink(
    top_k: Part = None,
    random_k: Part = None,
    qsgd: Levels = None,
    eden: Bits = None,
    uniform: Bits = None,
    *,
    names: tuple[str, ...] = ("theta",),
    d: int | None = None,
) -> Transform:
    """What happens to the model on its way down: sparsify -> quantise; an update is relative to what was decoded.

    A model stands less than an update does: 8 bits are safe. There is no error feedback, for the whole model is sent in
    each round, and an error of one would only be added to the next; no clip, which is of updates.

    Args:
        top_k: share of the coordinates that is sent, the largest; the others are zero.
        random_k: share of the coordinates that is sent, drawn at random and scaled up.
        qsgd: levels on each side of zero, of the norm.
        eden: bits a coordinate after a random rotation.
        uniform: bits a coordinate, between least and largest.
        names: the slots that are vectors of the model; the others pass as they are.
        d: their length, where it is known.

    >>> downlink(uniform=8).name
    'uniform'
    """
    sparse = {"top_k": top_k, "random_k": random_k}
    fine = {"qsgd": qsgd, "eden": eden, "uniform": uniform}
    if wrong := [*_choices("downlink", sparse, fine)]:
        raise BadInput(*wrong)
    return _named(chain(*_compressors(sparse, fine, names, d, biased=False, shared=False)), sparse | fine)


Numbers = Mapping[str, float | None]


def _given(values: Numbers) -> dict[str, float]:
    return {k: v for k, v in values.items() if v is not None}


def _compressors(
    sparse: Numbers, fine: Numbers, names: tuple[str, ...], d: int | None, *, biased: bool, shared: bool
) -> list[Transform]:
    """At most two: one that drops coordinates, and one that rounds those that are left."""
    steps: list[Transform] = []
    for key, share in _given(sparse).items():
        steps.append(
            sparsify.top_k(share, names, d)
            if key == "top_k"
            else sparsify.random_k(share, names, d, shared=shared, biased=biased)
        )
        d = share_of(float(share), d) if d is not None else None
    makers = {"qsgd": quantise.qsgd, "eden": rotated, "uniform": quantise.uniform}
    return steps + [makers[key](int(value), names, d, biased=biased) for key, value in _given(fine).items()]


def _named(t: Transform, table: Mapping[str, object]) -> Transform:
    """The transform with the table that makes it again."""
    return t._replace(table={k: v for k, v in table.items() if v is not None}) if t.apply is not None else t


def _choices(table: str, *groups: Numbers) -> Iterator[Problem]:
    """Of each group one at most."""
    for group in groups:
        if len(given := _given(group)) > 1:
            yield Problem("contradiction", f"{listed([*group])}: one of them",
                          ", ".join(f"{k} = {show(v)}" for k, v in given.items()) + f" in [{table}]",
                          rule="a coordinate is dropped, or rounded, once",
                          mend=f"leave {listed([*given][1:])} out")  # fmt: skip


def _beside(clip: float | None, feedback: bool, compressors: Numbers, private: bool, secure: bool) -> Iterator[Problem]:
    """What a protected sum can't carry (a sum of integers, of clipped updates)."""
    if not (private or secure):
        return
    table = "[privacy]" if private else "[secure]"
    if feedback:
        yield Problem("error-feedback", f"error feedback can't stand beside {table}", FEEDBACK,
                      rule="what a client carries over from earlier rounds is added after the bound, and undoes it",
                      mend="set error_feedback = false")  # fmt: skip
    why = {
        "top_k": "which coordinates are sent depends on the data, and each client sends others",
        "qsgd": "each client rounds to its own norm, so packed updates have no sum",
        "eden": "each client rotates and scales its own way, so packed updates have no sum",
        "uniform": "each client rounds to its own range, so packed updates have no sum",
    }
    for key, value in _given(compressors).items():
        if key in why:
            yield Problem("compression-beside-sum", f"{key} can't stand beside {table}",
                          f"{key} = {show(value)} in [uplink]", rule=why[key],
                          mend=f"random_k = 0.1 sends the same coordinates of all; or leave {key} out")  # fmt: skip
    if private and clip is not None:
        yield Problem("clipped-twice", "[uplink] clip can't stand beside [privacy]", f"clip = {show(clip)} in [uplink]",
                      rule="the bound that noise is calibrated for is the clip of [privacy]",
                      mend="leave it out of [uplink]")  # fmt: skip
