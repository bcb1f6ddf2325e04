"""What happens to messages between client and hub, in whole jobs: links, rules, attacks, a set held by the hub."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom import aggregate, transforms
from manyloom import algorithms as A
from manyloom.aggregate import ATTACKS, RULES
from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from manyloom.job.job import Execution, Job, Validation
from manyloom.job.plan import plan
from manyloom.job.prepare import prepare
from manyloom.job.state import State
from manyloom.privacy.settings import Privacy
from manyloom.runtime.attack import Mislabelled, liars_of
from manyloom.runtime.local import Local
from manyloom.secure.settings import Secure
from tests.toys import classes, history, job, play, theta

FED = classes((30, 20, 18, 22, 25, 24, 19, 28), seed=3)
LINKS = {
    "clip": {"clip": 0.1},
    "top_k": {"top_k": 0.2},
    "random_k": {"random_k": 0.5},
    "feedback": {"top_k": 0.1, "error_feedback": True},
    "qsgd": {"qsgd": 8},
    "eden": {"eden": 2},
    "uniform": {"uniform": 4},
    "both": {"top_k": 0.5, "eden": 4},
}
FAULTS = {"f": 1}
OF_RULE = {"trimmed-mean": FAULTS, "krum": FAULTS, "multi-krum": FAULTS}


def linked(up=None, down=None, recipe=None, **settings):
    algorithm = recipe or A.fedavg(lr=0.1, batch_size=5)
    vectors = tuple(n for n, length in algorithm.work.sends.items() if length == "d")
    if up is not None:
        algorithm = replace(algorithm, uplink=transforms.uplink(**up, names=vectors))
    if down is not None:
        algorithm = replace(algorithm, downlink=transforms.downlink(**down))
    return job(algorithm, FED, **settings)


def ruled(rule, attack=None, **settings):
    made = RULES[rule](**OF_RULE.get(rule, {}), **settings.pop("own", {}))
    algorithm = replace(A.fedavg(lr=0.1, batch_size=5), aggregate=made)
    return job(algorithm, FED, attack=attack, **settings)


def lying(made) -> list[int]:
    return liars_of(made).tolist()


def rounds_of(events):
    return [e for e in events if e.type == "round_done"]


@pytest.mark.parametrize("link", LINKS)
def test_a_link_up_weighs_what_the_plan_says_and_repeats(link):
    made = linked(LINKS[link])
    first, again = play(made), play(made)
    assert history(first) == history(again)
    told = plan(made, Local())
    assert {e.bytes_up for e in rounds_of(first)} == {told.bytes["up_round"]}
    assert torch.isfinite(first[-1].state.server["theta"]).all()


def test_one_bit_is_a_fraction_of_the_bytes():
    whole, bit = (rounds_of(play(linked(up)))[0].bytes_up for up in (None, {"eden": 1}))
    counts = 12 * len(FED)  # samples, steps, loss: they travel beside an update as they are
    assert (whole - counts) / (bit - counts) > 10  # 83 parameters: scale and length count


@pytest.mark.parametrize("down", [{"uniform": 8}, {"eden": 8}, {"top_k": 0.25}])
def test_an_update_is_relative_to_what_was_decoded(down):
    """A client that takes no step sends nothing: whatever it decoded, the model stays."""
    still = A.fedavg(lr=1e-30, batch_size=5)
    made = linked(None, down, recipe=still)
    events = play(made)
    moved = events[-1].state.server["theta"] - _first(made)
    assert float(moved.abs().max()) < 1e-6
    assert rounds_of(events)[0].bytes_down < rounds_of(play(linked()))[0].bytes_down
    assert rounds_of(events)[0].bytes_down == plan(made, Local()).bytes["down_round"]


def _first(made):
    return prepare(made, Local()).theta


@pytest.mark.parametrize("recipe", [A.fedavg, A.scaffold, A.fedadam])
def test_links_carry_every_vector_of_a_recipe(recipe):
    made = linked({"eden": 8}, {"uniform": 8}, recipe=recipe(lr=0.1, batch_size=5))
    plain = job(recipe(lr=0.1, batch_size=5), FED)
    got, want = theta(made), theta(plain)
    assert float((got - want).norm()) < 0.35 * float((want - _first(plain)).norm())


def test_running_statistics_and_numbers_pass_beside_a_packed_update():
    def net():
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))

    normed = Task(net, metrics=["accuracy"], buffers="average")
    for rule in ("mean", "median"):
        recipe = replace(A.fedavg(lr=0.1, batch_size=5), aggregate=RULES[rule]())
        made = replace(linked({"eden": 4}, {"uniform": 8}, recipe=recipe), task=normed)
        events = play(made)
        assert not [e for e in events if e.type == "client_lost"]
        assert {e.bytes_up for e in rounds_of(events)} == {plan(made, Local()).bytes["up_round"]}
    nova = play(linked({"eden": 8}, recipe=A.fednova(lr=0.1, batch_size=5)))
    assert not [e for e in nova if e.type == "client_lost"]


def test_error_feedback_goes_on_after_a_resume():
    made = linked({"top_k": 0.05, "error_feedback": True}, rounds=5)
    whole = play(made)
    states = [e.state for e in whole if e.type == "round_done"]
    assert "u.error" in states[1].clients
    rest = play(made, state=states[1])
    assert torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])
    forgot = replace(states[1], clients={})
    other = play(made, state=forgot)
    assert not torch.equal(other[-1].state.server["theta"], whole[-1].state.server["theta"])


# ---- rules and attacks


@pytest.mark.parametrize("rule", [r for r in RULES if r != "mean"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_rule_under_every_attack_repeats_in_both_engines(rule, attack):
    scale = {"scale": 10.0} if attack in ("ipm", "sign-flip", "gaussian") else {}
    made = ruled(rule, ATTACKS[attack](clients=1, **scale), rounds=2)
    first = play(made)
    assert history(first) == history(play(made))
    other = play(replace(made, execution=Execution(provider="vmap", group=4)))
    torch.testing.assert_close(first[-1].state.server["theta"], other[-1].state.server["theta"], atol=2e-4, rtol=2e-3)
    assert torch.isfinite(first[-1].state.server["theta"]).all()


def test_the_mean_falls_where_a_rule_holds():
    attack = aggregate.ATTACKS["ipm"](clients=2, scale=10.0)
    honest = play(job(A.fedavg(lr=0.1, batch_size=5), FED, rounds=8))
    fell = play(job(A.fedavg(lr=0.1, batch_size=5), FED, rounds=8, attack=attack))
    algorithm = replace(A.fedavg(lr=0.1, batch_size=5), aggregate=RULES["trimmed-mean"](f=2, pre="nnm"))
    held = play(job(algorithm, FED, rounds=8, attack=attack))
    loss = [e[-1].final["loss"] for e in (honest, fell, held)]
    assert loss[1] > 2 * loss[0] and loss[2] < 1.2 * loss[0]
    named = {e.client for e in held if e.type == "client_filtered"}
    liars = set(lying(job(algorithm, FED, attack=attack)))
    assert liars <= named


@pytest.mark.parametrize("attack", ["nan", "inf"])
@pytest.mark.parametrize("rule", ["mean", "median"])
def test_what_is_no_number_is_dropped_counted_and_named(rule, attack):
    made = ruled(rule, ATTACKS[attack](clients=2))
    events = play(made)
    lost = [e for e in events if e.type == "client_lost"]
    assert {e.client for e in lost} == set(lying(made)) and {e.reason for e in lost} == {"not-finite"}
    assert torch.isfinite(events[-1].state.server["theta"]).all()


def test_flipped_labels_are_those_of_the_liars_alone():
    made = ruled("mean", ATTACKS["label-flip"](clients=2))
    liars = np.array(lying(made))
    rows = Mislabelled(FED, made.attack, liars)
    for client in range(len(FED)):
        _, before = FED.slab([client]).gather()
        _, after = rows.slab(np.array([client])).gather()
        assert torch.equal(after, 2 - before if client in liars else before)
    _, test = rows.slab(np.arange(len(FED)), "test").gather()
    assert torch.equal(test, FED.slab(np.arange(len(FED)), "test").gather()[1])


def test_too_few_usable_updates_are_as_below_quorum():
    made = ruled("krum", ATTACKS["nan"](clients=5), own={"keep_f": True}, retries=1)
    events = play(made)
    failed = [e for e in events if e.type == "round_failed"]
    assert len(failed) == 2 and "krum needs n >= 2f+3: 3 usable updates" in failed[0].reason
    assert events[-1].status == "failed"


def test_a_rule_is_asked_before_the_job_runs():
    with pytest.raises(BadInput, match="krum needs") as error:
        ruled("krum", own={}, quorum=4)
    assert "quorum 4 of 8" in str(error.value)
    weighted = replace(A.fedavg(weights="samples"), aggregate=RULES["median"]())
    with pytest.raises(BadInput, match="counts all updates alike"):
        job(weighted, FED)
    assert ruled("median").algorithm.weights == "uniform"


# ---- the hub's own rows


def test_a_round_that_makes_the_model_worse_is_not_taken():
    attack = ATTACKS["ipm"](clients=3, scale=30.0)
    made = job(A.fedavg(lr=0.1, batch_size=5), FED, rounds=4, attack=attack,
               validation=Validation(rows=20, metric="loss", tolerance=0.0))  # fmt: skip
    events = play(made)
    rejected = [e for e in events if e.type == "round_rejected"]
    assert rejected and all(e.after > e.before and e.rows == 20 for e in rejected)
    assert len(rounds_of(events)) == 4
    alone = play(replace(made, validation=None, federation=made.federation))
    assert events[-1].final["loss"] < alone[-1].final["loss"]
    kept = [e.state.server["theta"] for e in rounds_of(events)]
    for e in rejected:
        before = kept[e.round - 2] if e.round > 1 else _first(made)
        assert torch.equal(kept[e.round - 1], before)


def test_rows_of_the_hub_are_no_clients():
    made = job(federation=FED, validation=Validation(rows=20))
    held = set(made.federation.held.tolist())
    theirs = set(made.federation.slab(np.arange(len(FED))).rows.tolist())
    assert len(held) == 20 and not held & theirs
    assert theirs | held == set(FED.slab(np.arange(len(FED))).rows.tolist())
    assert (made.federation.sizes >= 1).all() and made.federation.sizes.sum() == FED.sizes.sum() - 20
    with pytest.raises(BadInput, match="more rows would be held back"):
        job(federation=FED, validation=Validation(rows=10_000))
    with pytest.raises(BadInput, match="not measured"):
        job(federation=FED, validation=Validation(rows=5, metric="auc"))
    with pytest.raises(BadInput, match="stay at the clients"):
        job(A.fedper(local=["2.*"]), FED, validation=Validation(rows=5))


def test_a_rejected_round_resumes_like_any():
    made = job(A.fedavg(lr=0.1, batch_size=5), FED, rounds=4, attack=ATTACKS["ipm"](clients=3, scale=30.0),
               validation=Validation(rows=20, metric="loss", tolerance=0.0))  # fmt: skip
    whole = play(made)
    middle: State = rounds_of(whole)[1].state
    rest = play(made, state=middle)
    assert history(whole)[-len(history(rest)) :] == history(rest)


def test_a_file_of_the_hubs_own_judges_a_table(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    rows = [f"{a:.4f},{b:.4f},{int(a + b > 0)},{'north' if i % 2 else 'south'}" for i, (a, b) in enumerate(x)]
    (tmp_path / "all.csv").write_text("\n".join(["a,b,y,site", *rows]))
    (tmp_path / "hub.csv").write_text("\n".join(["b,y,a,more", *(f"{b:.4f},{int(a + b > 0)},{a:.4f},0" for a, b in x)]))
    (tmp_path / "job.toml").write_text(
        "[job]\nrounds = 2\n[data]\nsource = 'csv'\npath = 'all.csv'\nlabel = 'y'\nkey = 'site'\n"
        "[model]\nname = 'logistic'\n[validation]\npath = 'hub.csv'\nmetric = 'loss'\ntolerance = 0.0\n"
        "[attack]\nname = 'ipm'\nclients = 1\nscale = 50.0\n"
    )
    made = Job.from_toml(str(tmp_path / "job.toml"))
    events = play(made)
    rejected = [e for e in events if e.type == "round_rejected"]
    assert rejected and rejected[0].path == "hub.csv"
    own = made.federation.prepare(prepare(made, Local()).preprocess).validation()
    assert own is not None and len(own.rows) == 80
    with pytest.raises(BadInput, match="rows or path"):
        job(federation=FED, validation=Validation())
    with pytest.raises(BadInput, match="table columns only"):
        job(federation=FED, validation=Validation(path="hub.csv"))


def test_the_same_coordinates_of_all_go_through_a_secure_sum():
    recipe = A.fedavg(lr=0.1, batch_size=5)
    shared = transforms.uplink(random_k=0.5, names=("u",), secure=True)
    plain = job(replace(recipe, uplink=shared), FED)
    secure = replace(plain, secure=Secure(fidelity="ideal"))
    torch.testing.assert_close(theta(secure), theta(plain), rtol=0, atol=1e-4)
    assert plan(secure, Local()).bytes["up_round"] == _up(play(secure))
    private = job(replace(recipe, uplink=shared), FED, privacy=Privacy(clip=1e3, noise_multiplier=1e-6), cohort=1.0)
    uniform = job(replace(A.fedavg(lr=0.1, batch_size=5, weights="uniform"), uplink=shared), FED)
    torch.testing.assert_close(theta(private), theta(uniform), rtol=0, atol=0.05)
    own = transforms.uplink(random_k=0.5, names=("u",))
    with pytest.raises(BadInput, match="can't be summed"):
        job(replace(recipe, uplink=own), FED, secure=Secure(fidelity="ideal"))


def _up(events) -> int:
    done = rounds_of(events)[0]
    return done.bytes_up + done.secure["up"]


def test_an_adaptive_clip_moves_also_where_coordinates_are_dropped():
    many = classes((6,) * 40, test=0.0)
    recipe = replace(A.fedavg(lr=0.1, batch_size=5), uplink=transforms.uplink(random_k=0.5, names=("u",), private=True))
    claim = Privacy(clip=1e-3, noise_multiplier=0.5, adaptive=True)
    events = play(job(recipe, many, privacy=claim, cohort=1.0, eval_every=99))
    clips = [e.guard["clip"] for e in rounds_of(events)]
    assert clips[0] == 1e-3 < clips[1] < clips[2]  # far below the norms: it grows
