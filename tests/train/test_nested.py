import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch.nn import functional

from dqtsim.spec import exponent, operand, takes_half
from dqtsim.spec.rules import Nesting
from dqtsim.train.nested import (
    Geometry,
    add_codes,
    mixed_conv,
    nest_activation,
    nest_weight,
    nested_values,
    quantize_normalised,
    weight_codes,
)
from dqtsim.train.rules import WEIGHT_RULES, WeightRule

CODES = torch.arange(256)


@pytest.mark.parametrize("rule", WEIGHT_RULES)
@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("zero_point", [0, 37, 128])
def test_fake_nesting_is_integer_nesting(rule: WeightRule, width: int, dtype: torch.dtype, zero_point: int) -> None:
    if rule == "CENTROID":
        # halves of weights, whose zero point this is, fit the 8 bits of a bfloat16
        zero_point = 128
    signed = [operand(code, zero_point, width, 8, Nesting(rule)) for code in range(256)]
    half = 0.5 if takes_half(width, 8, Nesting(rule)) else 0.0
    fake = nested_values(CODES.to(dtype), width, zero_point, rule)
    assert fake.dtype == dtype
    assert fake.tolist() == [s * 2 ** exponent(width, 8, Nesting(rule)) - half for s in signed]


def test_weights_clip_and_pass_gradients_straight_through() -> None:
    weight = torch.tensor([[-3.0, -0.26, 0.1, 0.9]], requires_grad=True)
    step = torch.tensor([0.01], requires_grad=True)
    assert weight_codes(weight.detach(), step.detach()).tolist() == [[0.0, 102.0, 138.0, 218.0]]
    operand = nest_weight(weight, step, 2, "MIDPOINT")
    assert operand.tolist() == [[-96.0, -32.0, 32.0, 96.0]]
    torch.autograd.backward(operand.sum())
    assert weight.grad is not None
    assert step.grad is not None
    assert torch.allclose(weight.grad, torch.tensor([[0.0, 100.0, 100.0, 100.0]]))
    assert torch.allclose(step.grad, torch.tensor([-(-0.26 + 0.1 + 0.9) / 0.01**2]))


def test_activations_pass_gradients_straight_through() -> None:
    codes = torch.tensor([[3.0, 200.0, 255.0]], requires_grad=True)
    torch.autograd.backward(nest_activation(codes, 2, 0, "TIES_UP"), torch.tensor([[1.0, 2.0, 3.0]]))
    assert codes.grad is not None
    assert codes.grad.tolist() == [[1.0, 2.0, 3.0]]


def _straight_through(values: torch.Tensor) -> torch.Tensor:
    """Return codes whose gradient passes where they are strictly between their clips."""
    codes = torch.floor(values.detach() + 0.5).clamp(0, 255)
    inside = values * ((codes > 0) & (codes < 255))
    return inside + (codes - inside.detach())


def test_fused_batch_norm_equals_the_plain_one_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn((8, 4, 6, 6), generator=generator) * 300
    weight = torch.randn((8, 4, 6, 6), generator=generator)
    outcomes = []
    for fused in (True, False):
        x = source.clone().requires_grad_()
        gamma = torch.tensor([0.5, 1.0, 2.0, 0.1], requires_grad=True)
        beta = torch.tensor([0.1, -0.3, 0.0, 1.0], requires_grad=True)
        step = torch.tensor(0.02, requires_grad=True)
        if fused:
            codes, mean, variance = quantize_normalised(x, gamma, beta, step, 128, 255)
            assert torch.allclose(mean, source.mean((0, 2, 3)), atol=1e-2)
            assert torch.allclose(variance, source.var((0, 2, 3), unbiased=False), rtol=1e-4)
        else:
            y = functional.batch_norm(x, None, None, gamma, beta, True, 0.0, 1.0)
            codes = _straight_through(y / step + 128)
        torch.autograd.backward((codes * weight).sum())
        outcomes.append([codes.detach(), *(t.grad for t in (x, gamma, beta, step))])
    for one, other in zip(*outcomes, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def test_fused_add_equals_the_plain_one_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(0, 256, (3, 4, 5, 5), generator=generator).float() for _ in range(2)]
    weight = torch.randn((3, 4, 5, 5), generator=generator)
    outcomes = []
    for fused in (True, False):
        a, b = (c.clone().requires_grad_() for c in codes)
        steps = [torch.tensor(value, requires_grad=True) for value in (0.02, 0.013, 0.021)]
        if fused:
            y = add_codes(a, b, steps[0], steps[1], steps[2], (128, 0, 0))
        else:
            y = _straight_through(((a - 128) * steps[0] + b * steps[1]) / steps[2])
        torch.autograd.backward((y * weight).sum())
        outcomes.append([y.detach(), a.grad, b.grad, *(step.grad for step in steps)])
    for one, other in zip(*outcomes, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("explore", [True, False])
def test_a_mixed_convolution_is_each_picture_at_its_own_widths(explore: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (6, 3, 5, 5), generator=generator).float()
    weights = [torch.randint(-128, 128, (4, 3, 3, 3), generator=generator).float() for _ in range(2)]
    scale, offset = torch.tensor([[0.004], [0.006]]).repeat(1, 4), torch.tensor([[100.0], [90.0]]).repeat(1, 4)
    choice = torch.tensor([0, 1, 1, 0, 1, 1])
    weight = torch.randn((6, 4, 5, 5), generator=generator)
    outcomes = []
    for fused in (True, False):
        x, w0, w1, s, o = (t.clone().requires_grad_() for t in (codes, *weights, scale, offset))
        p = functional.one_hot(choice, 2).float().requires_grad_()
        if fused:
            y = mixed_conv(
                x, p, choice, [w0, w1], s, o, widths=(4, 8), zero_point=0, rule="TIES_UP",
                geometry=Geometry(padding=(1, 1)), high=255, explore=explore,
            )  # fmt: skip
        else:
            branches = []
            for k, w in enumerate((w0, w1)):
                accumulator = functional.conv2d(nest_activation(x, (4, 8)[k], 0, "TIES_UP"), w, None, 1, 1)
                values = accumulator * s[k][:, None, None] + o[k][:, None, None]
                branches.append(_straight_through(values))
            y = (p[:, :, None, None, None] * torch.stack(branches, 1)).sum(1)
        torch.autograd.backward((y * weight).sum())
        outcomes.append([y.detach(), *(t.grad for t in (x, w0, w1, s, o))])
        if fused and not explore:
            assert p.grad is None
        elif p.grad is not None:
            # A softmax ignores what all its probabilities have in common, and so does the fused gradient.
            outcomes[-1].append(p.grad - p.grad.gather(1, choice[:, None]))
    for one, other in zip(*outcomes, strict=False):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-1)
