"""The leak meter: attacks that succeed where labels show, and nowhere else."""

import math

import pytest
import torch

from manyloom.vertical.leak import Attack, attack, leaked

G = torch.Generator().manual_seed(5)


def test_signs_of_a_binary_loss_give_the_labels_away():
    y = (torch.rand(256, generator=G) < 0.3).long()
    p = torch.rand(256, generator=G)
    g = (p - y)[:, None] * torch.tensor([1.0, -2.0, 0.5])
    assert attack(g, y).cosine == 1.0


def test_norms_alone():
    y = torch.tensor([0, 1, 0, 1])
    g = torch.tensor([[0.1, 0.0], [0.0, 5.0], [0.0, -0.2], [-6.0, 0.0]])
    assert attack(g, y).norm == 1.0


def test_a_class_that_is_smaller_counts_as_well():
    y = torch.tensor([1, 0, 1, 0])
    g = torch.tensor([[0.1, 0.0], [0.0, 5.0], [0.0, -0.2], [-6.0, 0.0]])
    assert attack(g, y).norm == 1.0  # 1 - 0


def test_noise_tells_nothing():
    all_of = [attack(torch.randn(256, 16, generator=G), (torch.rand(256, generator=G) < 0.3).long()) for _ in range(40)]
    told = leaked(0, all_of)
    assert told.norm_mean < 0.56 and told.cosine_mean < 0.56 and told.norm_q95 < 0.62


def test_one_class_is_no_batch():
    assert attack(torch.randn(4, 2), torch.zeros(4, dtype=torch.long)) is None
    told = leaked(2, [None, Attack(0.5, 1.0), None])
    assert (told.party, told.batches, told.norm_mean, told.cosine_q95) == (2, 1, 0.5, 1.0)
    assert leaked(0, [None]).batches == 0 and math.isnan(leaked(0, []).norm_mean)


def test_of_several_classes_the_worst():
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    g = torch.tensor([[1.0], [1.1], [9.0], [1.05], [0.9], [8.0]])
    assert attack(g, y).norm == 1.0
    assert attack(g, torch.tensor([0, 1, 1, 0, 1, 1])).norm < 1.0


def test_quantile():
    told = leaked(0, [Attack(0.5 + i / 200, 0.5) for i in range(101)])
    assert told.norm_q95 == pytest.approx(0.5 + 95 / 200)


def test_zero_gradients_are_no_trouble():
    assert attack(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])) == Attack(0.5, 0.5)
