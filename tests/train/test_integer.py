"""Integer-exact mode: every code, logit and choice of the torch network is that of the exported model."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch

from dqtsim.errors import InputError, ModelError
from dqtsim.train import NestedConfig, NestingRules, calibrate, networks, prepare, train
from dqtsim.train.config import TrainConfig
from dqtsim.train.constants import multiplier_and_shift, per_channel
from dqtsim.train.controller import Controller, decide, sample
from dqtsim.train.exact import run_batch, run_graph
from dqtsim.train.folding import fold
from dqtsim.train.integer import set_exact
from dqtsim.train.modules.base import Codes, Policy, Uniform
from dqtsim.train.network import NestedNetwork
from dqtsim.train.phases import load_state
from dqtsim.train.rules import WEIGHT_RULES, WeightRule

from .conftest import tiny_config
from .test_prepare import SHAPE, Everything, pictures, trained

# At (4, 8) sums of CENTROID may end in a half.
PAIRS = ((2, 2), (4, 8), (8, 8), (3, 6))
# A scale that float32 does not hold, and a zero point that nests unlike 128.
SCALE, ZERO_POINT = 0.0171, 113
# Of so many pictures every tensor is compared, each picture run alone; of all of them, in one batch, the logits.
ALONE = 6


def nested(weight: WeightRule, shared: bool, every: bool = True) -> tuple[NestedNetwork, Controller]:
    """Return a calibrated network of every kind of step, or with residual adds, and a controller that varies."""
    torch.manual_seed(5)
    rules = NestingRules(weight, "FLOOR" if weight == "FLOOR" else "TIES_UP", PAIRS, shared_norm=shared)
    model = trained(Everything()) if every else networks.build("resnet8", 10, 0.25).eval()
    network = prepare(model, NestedConfig(rules, SHAPE, ZERO_POINT, SCALE))
    calibrate(network, [pictures()])
    controller = network.new_controller()
    with torch.no_grad():
        controller.calibrate(network.features(pictures()))
        controller.logits.bias.normal_()
    return network, controller


@contextmanager
def recorded(network: NestedNetwork) -> Iterator[dict[str, torch.Tensor]]:
    """Collect what each module of the network puts out, by its step's name."""
    found: dict[str, torch.Tensor] = {}

    def note(name: str) -> Any:
        def hook(_module: object, _inputs: object, output: Codes | torch.Tensor) -> None:
            found[name] = (output.values if isinstance(output, Codes) else output).detach()

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.by_name().items()]
    yield found
    for handle in handles:
        handle.remove()


@contextmanager
def recorded_step(network: NestedNetwork) -> Iterator[list[float]]:
    """Collect the step of what the first convolution reads; float32 would round it, and export does not."""
    found: list[float] = []
    stem = network.layer(network.steps[0].name)
    handle = stem.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0].step.item()))
    yield found
    handle.remove()


def integers(logits: torch.Tensor, network: NestedNetwork) -> torch.Tensor:
    """Return float64 logits as the integers that they are multiples of."""
    last = cast(Any, network.layer(network.steps[-1].name))
    source = next(step for step in reversed(network.steps[:-1]) if step.name in network.by_name())
    scale = last.weight_step().item() * cast(Any, network.layer(source.name)).step().item()
    return cast(torch.Tensor, (logits.double() / scale).round().to(torch.int64))


def compare(network: NestedNetwork, policy: Policy, widths: torch.Tensor, graph: Any) -> int:
    """Assert that logits and every module's output are the exported model's; return how many elements are compared."""
    with torch.no_grad(), recorded(network) as found:
        logits = network(pictures(), policy)
    batch, _ = run_batch(graph, pictures(), widths)
    assert torch.equal(integers(logits, network), batch.to(torch.int64))
    assert torch.equal(logits.argmax(1), batch.argmax(1))
    elements = 0
    for i, picture in enumerate(pictures(ALONE)):
        from dqtsim.graph import with_bits

        rows = (widths[i] if widths.dim() == 3 else widths).tolist()
        alone = run_graph(with_bits(graph, [(w, a) for w, a in rows]), picture[None].numpy())
        for name, values in found.items():
            expected = alone[name][0]
            if expected.dtype == np.uint8:
                assert np.array_equal(values[i].numpy().astype(np.int64), expected), (name, i)
                elements += expected.size
    return elements


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("weight", WEIGHT_RULES)
@pytest.mark.parametrize("every", [True, False])
def test_every_code_is_that_of_the_exported_model(weight: WeightRule, shared: bool, every: bool) -> None:
    network, controller = nested(weight, shared, every)
    graph = fold(network, controller)
    first = graph.node(network.layer_names[0])
    # A row per pair of widths (B3''), or one of one width.
    assert ("row_pairs" in first.form) != shared
    assert len(graph.constants(first)["bias"]) == (1 if shared else 4)
    for module in (network, controller):
        set_exact(module.train(), True)
    with recorded_step(network) as steps:
        network.features(pictures(1))
    assert steps == [SCALE]
    for k, pair in enumerate(PAIRS):
        rows = torch.tensor([graph.pinned.get(layer, pair) for layer in graph.layers])
        assert compare(network, Uniform(k), rows, graph) > 10000
    with torch.no_grad():
        logits = controller(network.features(pictures()))
    _, used = run_batch(graph, pictures())
    decided = decide(logits)
    assert torch.equal(used[:, 1:], torch.tensor(PAIRS)[decided.choice])
    assert len(torch.unique(decided.choice, dim=0)) > 1
    table = torch.from_numpy(run_graph(graph, pictures(1).numpy())["controller.logits"])
    scale = float(controller.folded_logits().step) * controller.hidden_step().item()
    assert torch.equal((logits[0] / scale).round().flatten().to(torch.int32), table.flatten())
    assert compare(network, decided, used, graph) > 10000
    sampled = sample(logits, 1.0, torch.Generator().manual_seed(0))
    used[:, 1:] = torch.tensor(PAIRS)[sampled.choice]
    assert compare(network, sampled, used, graph) > 10000


def test_without_the_mode_some_codes_differ() -> None:
    network, controller = nested("MIDPOINT", False)
    graph = fold(network, controller)
    rows = torch.tensor([graph.pinned.get(layer, (8, 8)) for layer in graph.layers])
    with pytest.raises(AssertionError):
        compare(network, Uniform(2), rows, graph)


def gradients(exact: bool, policy: str) -> dict[str, torch.Tensor]:
    network, controller = nested("MIDPOINT", False)
    network.train()
    network.freeze_norm(True)
    for module in (network, controller):
        set_exact(module, exact)
    # Of many pictures, so that no gradient rests on one code that may differ by one.
    stem = network.features(pictures(64), torch.float32)
    # With this seed no choice is so close that the codes that differ by one turn it.
    mixed = sample(controller(stem), 1.0, torch.Generator().manual_seed(2))
    logits = network.head(stem, mixed if policy == "mixed" else Uniform(2))
    torch.autograd.backward(logits.square().sum())
    named = [*network.named_parameters(), *controller.named_parameters(prefix="controller")]
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


@pytest.mark.parametrize("policy", ["uniform", "mixed"])
def test_gradients_are_those_of_fake_quantization(policy: str) -> None:
    plain, exact = (gradients(mode, policy) for mode in (False, True))
    assert plain.keys() == exact.keys()
    for name, one in plain.items():
        other = exact[name]
        assert other.dtype == one.dtype
        assert bool(torch.isfinite(other).all()), name
        # A few codes differ by one, so gradients differ a little; those of steps are sums that cancel.
        if not name.endswith("logarithm"):
            assert float((one - other).norm()) <= 0.1 * float(one.norm()) + 1e-6, name


@pytest.mark.parametrize("dynamic", [True, False])
def test_the_last_epochs_of_a_run_are_exact(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamic: bool
) -> None:
    config = dataclasses.replace(
        tiny_config(cifar, tmp_path / "run"), width=0.5, float_epochs=1, uniform_epochs=2, dynamic_epochs=2 * dynamic,
        pictures=32, exact_epochs=1,
    )  # fmt: skip
    modes: list[tuple[bool, bool, torch.dtype]] = []
    head = NestedNetwork.head

    def watched(self: NestedNetwork, stem: Codes, policy: Policy) -> torch.Tensor:
        modes.append((self.training, self.exact, stem.values.dtype))
        return head(self, stem, policy)

    monkeypatch.setattr(NestedNetwork, "head", watched)
    run = train(dataclasses.replace(config, precision="bfloat16"))
    steps = [mode[1:] for mode in modes if mode[0]]
    exact = [mode for mode in steps if mode[0]]
    assert len(exact) == (4 if dynamic else 3)
    assert steps[-len(exact) :] == exact
    assert {mode[1] for mode in exact} == {torch.float32}
    assert {mode[1] for mode in steps[: -len(exact)]} == {torch.bfloat16}
    assert all(bool(torch.isfinite(value).all()) for value in load_state(run.checkpoint)["network"].values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"exact_epochs": 8}, "exact_epochs must be from 0 to dynamic_epochs, 7, but is 8."),
        ({"exact_epochs": 9, "dynamic_epochs": 0}, "exact_epochs must be from 0 to uniform_epochs, 8, but is 9."),
        (
            {"exact_epochs": 1, "relaxation": "softmax"},
            "exact_epochs must be 0 where relaxation is softmax, whose mixed branches no integers compute.",
        ),
    ],
)
def test_impossible_exact_epochs_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        dataclasses.replace(TrainConfig(Path("d"), Path("o")), **change).check()
    assert str(raised.value) == sentence


def test_many_multipliers_are_made_at_once_as_one_by_one() -> None:
    values = np.exp(np.random.default_rng(0).uniform(-40, 11, (3, 200)))
    values[0, :4] = [1e-30, 0.99999999, 65535.4, 1.0]
    multipliers, shifts = per_channel(values, "layer")
    for value, multiplier, shift in zip(values.flat, multipliers.flat, shifts.flat, strict=True):
        assert shift == 62 or 32768 <= multiplier <= 65535
        assert multiplier == round(Fraction(value) * 2 ** int(shift))
    assert multiplier_and_shift([0.3, 0.2], "layer") == ([39322, 26214], 17)
    for value in (0.0, -1.0, np.inf, np.nan, 65536.0):
        with pytest.raises(ModelError):
            per_channel(np.array([1.0, value]), "layer")
