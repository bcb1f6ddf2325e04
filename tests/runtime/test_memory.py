"""What clients remember: strangers start as declared, secrets are in no snapshot."""

import numpy as np
import torch

from manyloom.runtime.memory import Memory


def test_strangers_and_old_friends():
    memory = Memory({"c": torch.tensor([1.0, 2.0]), "key": torch.zeros(1)}, secret=["key"])
    memory.keep(np.array([5, 2]), {"c": torch.tensor([[3.0, 3.0], [4.0, 4.0]]), "key": torch.ones(2, 1)})
    assert memory.recall(np.array([2, 8, 5]))["c"].tolist() == [[4, 4], [1, 2], [3, 3]]
    recalled = memory.recall(np.array([2]))
    recalled["c"].zero_()
    assert memory.recall(np.array([2]))["c"].tolist() == [[4, 4]]
    saved = memory.snapshot()
    assert set(saved) == {"clients", "c"} and saved["clients"].tolist() == [5, 2]
    memory.keep(np.array([9]), {"c": torch.zeros(1, 2)})
    memory.restore(saved)
    assert memory.recall(np.array([9, 5]))["c"].tolist() == [[1, 2], [3, 3]]
    assert memory.recall(np.array([5]))["key"].tolist() == [[0]]


def test_it_grows_and_stays_empty_where_nothing_is_declared():
    memory = Memory({"c": torch.zeros(3)})
    for i in range(100):
        memory.keep(np.array([i * 7]), {"c": torch.full((1, 3), float(i))})
    assert memory.recall(np.array([693, 7]))["c"][:, 0].tolist() == [99, 1]
    nothing = Memory({})
    nothing.keep(np.array([1]), {})
    assert nothing.recall(np.array([1])) == {} and nothing.snapshot() == {}
