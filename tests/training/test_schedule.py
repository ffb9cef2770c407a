"""The optimizer and its pace."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.training.recipe import Recipe, Stage
from pipeline.training.schedule import build_optimizer, learning_rate_at, momentum_at, set_pace

RECIPE = Recipe("r", "resnet18", stages=(Stage(10),), learning_rate=0.4, warmup_epochs=3)
NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_cosine_rises_in_a_line_and_falls_to_nothing():
    assert learning_rate_at(RECIPE, 0) > 0  # the first step counts, too
    assert learning_rate_at(RECIPE, 1.5) == pytest.approx(0.2)
    assert learning_rate_at(RECIPE, 3) == pytest.approx(0.4)
    assert learning_rate_at(RECIPE, 6.5) == pytest.approx(0.2)
    assert learning_rate_at(RECIPE, 10) == pytest.approx(0)


def test_without_warm_up_it_starts_at_the_highest():
    for schedule in ("cosine", "one_cycle"):
        assert learning_rate_at(replace(RECIPE, warmup_epochs=0, schedule=schedule), 0) == pytest.approx(0.4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_one_cycle_is_pytorchs(optimizer):
    recipe = replace(RECIPE, schedule="one_cycle", optimizer=optimizer)
    ours, theirs = build_optimizer(NETWORK, recipe), build_optimizer(NETWORK, recipe)
    steps = 1000
    scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.4, total_steps=steps + 1, pct_start=0.3)
    for step in range(steps):
        set_pace(ours, recipe, 10 * step / steps)
        mine, group = ours.param_groups[0], theirs.param_groups[0]
        assert mine["lr"] == pytest.approx(group["lr"], rel=0.02, abs=1e-5)
        key = "momentum" if optimizer == "sgd" else "betas"
        assert mine[key] == pytest.approx(group[key], abs=1e-3)
        theirs.step()
        scheduler.step()


def test_a_warm_up_shorter_than_a_step_never_exceeds_the_highest():
    assert learning_rate_at(replace(RECIPE, warmup_epochs=0.005), 0) == 0.4


def test_momentum_of_what_is_unfrozen_later_begins_then():
    """Its course is PyTorch's own, in which momentum begins with the first gradient."""
    networks = [nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    theirs = torch.optim.SGD(networks[1].parameters(), 0.1, momentum=0.9, nesterov=True)
    ours = build_optimizer(networks[0], replace(RECIPE, learning_rate=0.1, weight_decay=0))
    for step in range(4):
        for network, optimizer in zip(networks, (ours, theirs), strict=True):
            network[0].requires_grad_(step >= 2)
            optimizer.zero_grad()
            network(torch.ones(2, 3) * (step + 1)).sum().backward()
            optimizer.step()
    for mine, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_cosine_keeps_the_momentum():
    assert {momentum_at(RECIPE, epoch) for epoch in (0, 3, 9.9)} == {0.9}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_kernels_decay(optimizer):
    groups = build_optimizer(NETWORK, replace(RECIPE, optimizer=optimizer)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in NETWORK.named_parameters()} == {
        "0.weight": 5e-4,
        "0.bias": 0,
        "1.weight": 0,
        "1.bias": 0,
    }
