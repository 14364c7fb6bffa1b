from functools import partial
from itertools import pairwise

import pytest
import torch

from nailseg.models.segformer import SegFormer
from nailseg.training.optim import group_schedule, parameter_groups, step_decay, warmup_poly, warmup_steps


@pytest.fixture
def network(tiny_folder) -> SegFormer:
    return SegFormer(str(tiny_folder))


def test_every_parameter_is_in_one_group(network: SegFormer) -> None:
    groups = parameter_groups(network, lr=1e-4, weight_decay=0.01, head_lr_multiplier=10)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in network.parameters())
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "encoder": (1e-4, 0.01),
        "encoder_no_decay": (1e-4, 0.0),
        "head": (1e-3, 0.01),
        "head_no_decay": (1e-3, 0.0),
    }


def test_norms_and_biases_have_no_decay(network: SegFormer) -> None:
    groups = parameter_groups(network, 1e-4, 0.01, 10)
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.LayerNorm | torch.nn.BatchNorm2d):
            assert {id(p) for p in module.parameters()} <= undecayed, name
    for name, parameter in network.named_parameters():
        assert not name.endswith("bias") or id(parameter) in undecayed, name


def test_a_network_without_a_head_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"found none in \['head', 'head_no_decay'\]"):
        parameter_groups(torch.nn.Linear(2, 2), 1e-4, 0.01, 10)


def test_schedule_increases_and_decays_to_zero() -> None:
    factors = [warmup_poly(step, total=100, warmup=10, power=1.0) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == max(factors[8:11])
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == 0
    assert all(later < earlier for earlier, later in pairwise(factors[10:]))


@pytest.mark.parametrize(("total", "expected"), [(10, 1), (1000, 50), (160_000, 1500)])
def test_warmup_scales_with_the_run_up_to_the_papers(total: int, expected: int) -> None:
    assert warmup_steps(total, 0.05) == expected


def test_frozen_encoder_keeps_its_weights(network: SegFormer) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-2, 0.01, 10))
    scheduler = group_schedule(
        optimizer, partial(warmup_poly, total=10, warmup=1, power=1.0), frozen_encoder=3
    )
    encoder_norm = lambda: sum(p.detach().sum().item() for p in network.hf.segformer.parameters())  # noqa: E731
    start = encoder_norm()
    for step in range(5):
        if step == 3:
            assert encoder_norm() == start
        network.train()(torch.zeros(1, 3, 64, 64)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    assert encoder_norm() != start


def test_group_schedule_matches_step_lr_without_frozen_steps(network: SegFormer) -> None:
    ours, theirs, frozen = (
        torch.optim.AdamW(parameter_groups(network, 4e-4, 0.0, head_lr_multiplier=1)) for _ in range(3)
    )
    schedules = [
        group_schedule(ours, partial(step_decay, period=3, factor=0.8)),
        torch.optim.lr_scheduler.StepLR(theirs, 3, 0.8),
        group_schedule(frozen, partial(step_decay, period=3, factor=0.8), frozen_encoder=2),
    ]
    for step in range(10):
        rates = [schedule.get_last_lr() for schedule in schedules]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12)
        assert rates[2] == pytest.approx([rate * (step >= 2) for rate in rates[0][:2]] + rates[0][2:])
        for optimizer, schedule in zip((ours, theirs, frozen), schedules, strict=True):
            optimizer.step()
            schedule.step()


def test_without_weight_decay_adamw_is_adam() -> None:
    finals = []
    for kind in (torch.optim.AdamW, torch.optim.Adam):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 4)
        optimizer = kind(layer.parameters(), lr=1e-2, weight_decay=0.0)
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.ones(1, 4)).square().sum().backward()
            optimizer.step()
        finals.append(layer.weight.detach())
    torch.testing.assert_close(*finals)
