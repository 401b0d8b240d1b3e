import json

import pytest
import torch
from prodigyopt import Prodigy

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


def test_prodigy_is_prodigyopts_to_the_last_bit(recipe):
    """With parameters that start at zero, one without gradients, and a step whose gradients are all zero."""
    made = recipe(optimizer="prodigy", lr=1.0)
    settings = {"betas": made.betas, "weight_decay": made.weight_decay}
    starts = [torch.randn(5, 3, generator=torch.Generator().manual_seed(7)), torch.zeros(4, 2), torch.ones(3)]
    runs = []
    for kind in (
        lambda them: Prodigy(them, use_bias_correction=True, safeguard_warmup=True, **settings),
        None,
    ):
        parameters = [torch.nn.Parameter(start.clone()) for start in starts]
        optimizer = kind(parameters) if kind else make_optimizer(parameters, made)
        for step in range(40):
            for number, parameter in enumerate(parameters[:2]):
                generator = torch.Generator().manual_seed(100 * step + number)
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.grad = (parameter.detach() - 3 + 0.1 * noise) * (step != 0)
            optimizer.step()
        runs.append((parameters, optimizer_state(optimizer)))
    (theirs, (their_tensors, their_rest)), (ours, (tensors, rest)) = runs
    assert all(torch.equal(one, other) for one, other in zip(theirs, ours, strict=True))
    assert rest == their_rest
    assert tensors.keys() == their_tensors.keys()
    assert all(torch.equal(tensors[name], their_tensors[name]) for name in tensors)
    assert step_size(optimizer) > 1e-5
