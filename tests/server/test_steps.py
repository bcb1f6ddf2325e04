"""Server steps by hand: two coordinates, two rounds, the numbers worked out on paper."""

import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.server import SERVERS, adagrad, adam, momentum, sgd, yogi
from manyloom.server.control import control

THETA = torch.tensor([1.0, -1.0], dtype=torch.float64)
U = torch.tensor([0.5, -0.25], dtype=torch.float64)


def twice(step):
    state = step.init(THETA)
    for _ in range(2):
        state = step.apply(state, {"u": U})
    return step.model(state).tolist()


def test_sgd():
    assert twice(sgd()) == [2.0, -1.5]
    assert twice(sgd(lr=0.5)) == [1.5, -1.25]


def test_momentum():
    # v = u, then 0.9 u + u = 1.9 u: in all 2.9 u
    assert twice(momentum()) == pytest.approx([1 + 2.9 * 0.5, -1 - 2.9 * 0.25])


def test_adam():
    # m = .1u, .19u; v = .99 t2 + .01 uu, ...; theta += .1 m / (sqrt v + tau), no bias correction
    t2, theta = 1e-6, []
    for u, start in zip([0.5, -0.25], [1.0, -1.0]):
        v1 = 0.99 * t2 + 0.01 * u * u
        v2 = 0.99 * v1 + 0.01 * u * u
        theta.append(start + 0.1 * 0.1 * u / (v1**0.5 + 1e-3) + 0.1 * 0.19 * u / (v2**0.5 + 1e-3))
    assert twice(adam(lr=0.1)) == pytest.approx(theta)


def test_yogi():
    theta = []
    for u, start in zip([0.5, -0.25], [1.0, -1.0]):
        v1 = 1e-6 + 0.01 * u * u  # v < u^2: sign -1
        v2 = v1 + 0.01 * u * u
        theta.append(start + 0.1 * 0.1 * u / (v1**0.5 + 1e-3) + 0.1 * 0.19 * u / (v2**0.5 + 1e-3))
    assert twice(yogi(lr=0.1)) == pytest.approx(theta)


def test_adagrad():
    theta = []
    for u, start in zip([0.5, -0.25], [1.0, -1.0]):
        v1, v2 = 1e-6 + u * u, 1e-6 + 2 * u * u
        theta.append(start + 0.1 * u / (v1**0.5 + 1e-3) + 0.1 * u / (v2**0.5 + 1e-3))  # beta1 0: m = u
    assert twice(adagrad(lr=0.1)) == pytest.approx(theta)


def test_scaffolds_control_moves_by_the_share_that_answered():
    step = control(sgd())
    state = step.apply(step.init(THETA), {"u": U, "dc": torch.tensor([1.0, 2.0]), "share": torch.tensor(0.25)})
    assert state["c"].tolist() == [0.25, 0.5] and step.down(state).keys() == {"theta", "c"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_zero_aggregate_moves_nothing_and_float32_stays_float32(name):
    step = SERVERS[name]()
    state = step.init(THETA.float())
    after = step.apply(state, {"u": torch.zeros(2, dtype=torch.float64)})
    assert torch.equal(step.model(after), THETA.float()) and step.model(after).dtype == torch.float32
    assert step.table["name"] == name


def test_wrong_arguments_are_refused():
    for make in (lambda: sgd(lr=0.0), lambda: momentum(beta=1.0), lambda: adam(tau=-1.0)):
        with pytest.raises(BadInput):
            make()
