import json

import pytest
import torch

from urae.training.optimizer import load_optimizer, make_optimizer, optimizer_state, step_size


def trained(optimizer, parameters, steps: range) -> None:
    for step in steps:
        for parameter in parameters:
            generator = torch.Generator().manual_seed(step)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize(("name", "lr"), [("prodigy", 1.0), ("adamw", 1e-2)])
def test_the_state_survives_as_tensors_and_json(recipe, name, lr):
    made = recipe(optimizer=name, lr=lr)
    whole = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.zeros(4))]
    broken = [torch.nn.Parameter(parameter.detach().clone()) for parameter in whole]
    trained(make_optimizer(whole, made), whole, range(20))
    first = make_optimizer(broken, made)
    trained(first, broken, range(8))
    tensors, rest = optimizer_state(first)
    second = make_optimizer(broken, made)
    load_optimizer(second, tensors, json.loads(json.dumps(rest)))
    trained(second, broken, range(8, 20))
    assert all(torch.equal(one, other) for one, other in zip(whole, broken, strict=True))


def test_prodigy_has_the_references_settings(recipe):
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], recipe(optimizer="prodigy", lr=1.0))
    expected = {"lr": 1.0, "betas": (0.9, 0.999), "weight_decay": 1e-4, "decouple": True}
    expected |= {"use_bias_correction": True, "safeguard_warmup": True}
    assert {name: optimizer.param_groups[0][name] for name in expected} == expected
    assert step_size(optimizer) == 1e-6


def test_making_an_optimizer_prints_nothing(recipe, capsys):
    make_optimizer([torch.nn.Parameter(torch.ones(2))], recipe(optimizer="prodigy", lr=1.0))
    assert capsys.readouterr().out == ""
