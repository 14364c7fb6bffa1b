"""The decode head compared with transformers': the same function of the same parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from nailseg.models.decode_head import DecodeHead
from tests.conftest import TINY

SIZES = [(64, 64), (65, 97), (33, 40)]


def tiny(**options: object) -> SegformerConfig:
    return SegformerConfig(**TINY | {"num_labels": 3, "attn_implementation": "sdpa"} | options)


def pair(**options: object) -> tuple[SegformerForSemanticSegmentation, SegformerForSemanticSegmentation]:
    """transformers' network, and the same with our head; no parameter or statistic is exactly 0 or 1."""
    torch.manual_seed(0)
    stock = SegformerForSemanticSegmentation(tiny(**options))
    for tensor in stock.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand_like(tensor))
    ours = copy.deepcopy(stock)
    ours.decode_head = DecodeHead(ours.decode_head)
    return stock, ours


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to the largest absolute value expected."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def compare_gradients(stock: nn.Module, ours: nn.Module) -> None:
    expected = {name: parameter.grad for name, parameter in stock.named_parameters()}
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in ours.named_parameters():
        # some gradients are zero but for rounding: softmax ignores the keys' biases, batch norm the
        # projections'
        scale = max(expected[name].abs().max(), 1e-3 * largest)
        assert (parameter.grad - expected[name]).abs().max() < 1e-9 * scale, name


def images(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_evaluation_equals_transformers(size: tuple[int, int], mode: type) -> None:
    stock, ours = (network.eval() for network in pair())
    with mode():
        assert difference(ours(images(size)).logits, stock(images(size)).logits) < 1e-5


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_training_equals_transformers(size: tuple[int, int]) -> None:
    stock, ours = (network.double().train() for network in pair(classifier_dropout_prob=0, drop_path_rate=0))
    labels = torch.randint(0, 3, (2, *size))
    labels[:, :5] = 255
    for _ in range(2):  # the second step starts from moved running statistics
        outputs = [network(images(size, torch.float64), labels=labels) for network in (stock, ours)]
        assert difference(outputs[1].logits, outputs[0].logits) < 1e-9
        for output in outputs:
            output.loss.backward()
    compare_gradients(stock, ours)
    buffers = dict(stock.named_buffers())
    for name, buffer in ours.named_buffers():
        assert difference(buffer.double(), buffers[name].double()) < 1e-9, name


def test_evaluation_gradients_equal_transformers() -> None:
    """Batch norm in evaluation mode is folded too, and its scale has a gradient."""
    stock, ours = (network.double().eval() for network in pair())
    for network in (stock, ours):
        network(images((64, 64), torch.float64)).logits.square().mean().backward()
    compare_gradients(stock, ours)


def test_dropout_of_the_config() -> None:
    _, ours = pair(classifier_dropout_prob=0.5, drop_path_rate=0)
    captured = []
    ours.decode_head.classifier.register_forward_hook(
        lambda _module, inputs, _output: captured.append(inputs[0])
    )
    ours.decode_head.activation = nn.Softplus()  # so that only dropout makes zeros
    ours.train()(images((64, 64)))
    ours.eval()(images((64, 64)))
    assert 0.4 < (captured[0] == 0).float().mean() < 0.6
    assert (captured[1] == 0).sum() == 0


def test_state_dict_equals_transformers() -> None:
    stock, ours = pair()
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in stock.named_parameters()]


def test_flat_last_stage() -> None:
    """transformers takes the side as sqrt(channels): right for 128x128 and 16 channels, which leave 4 x 4."""
    widths = {"hidden_sizes": [8, 16, 24, 16], "num_attention_heads": [1, 2, 3, 4]}
    stock, ours = (network.eval() for network in pair(reshape_last_stage=False, **widths))
    shaped = SegformerForSemanticSegmentation(tiny(**widths)).eval()
    shaped.load_state_dict(stock.state_dict())
    with torch.no_grad():
        square = images((128, 128))
        assert difference(ours(square).logits, stock(square).logits) < 1e-5
        for size in SIZES:  # transformers fails or is wrong here; the flat form equals the shaped one
            assert difference(ours(images(size)).logits, shaped(images(size)).logits) < 1e-5


@pytest.mark.parametrize("asked", ["config", "argument"])
def test_hidden_states_equal_transformers(asked: str) -> None:
    stock, ours = (n.eval() for n in pair(**{"output_hidden_states": True} if asked == "config" else {}))
    options = {"output_hidden_states": True} if asked == "argument" else {}
    with torch.no_grad():
        expected, found = stock(images((64, 64)), **options), ours(images((64, 64)), **options)
    assert len(found.hidden_states) == len(expected.hidden_states) == 4
    assert all(torch.equal(a, b) for a, b in zip(found.hidden_states, expected.hidden_states, strict=True))


def test_bf16_autocast_is_as_close_as_transformers() -> None:
    stock, ours = (network.eval() for network in pair())
    pixels = images((64, 64))
    with torch.no_grad():
        exact = stock(pixels).logits
        with torch.autocast("cpu", torch.bfloat16):
            theirs, mine = stock(pixels).logits.float(), ours(pixels).logits.float()
    assert difference(mine, exact) < max(0.02, 1.5 * difference(theirs, exact))


def test_weight_changes_have_an_effect() -> None:
    """Nothing is cached between calls, in inference mode or not."""
    stock, ours = (network.eval() for network in pair())
    pixels = images((64, 64))

    def agree() -> bool:
        with torch.inference_mode():
            return difference(ours(pixels).logits, stock(pixels).logits) < 1e-5

    assert agree()
    for network in (stock, ours):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.mul_(1.1) if tensor.is_floating_point() else tensor.add_(1)
    assert agree()
    for network in (stock, ours):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        network.train()
        for part in network.modules():
            if isinstance(part, (nn.Dropout, nn.Dropout2d)):
                part.p = 0.0
        for part in network.segformer.modules():
            if hasattr(part, "drop_prob"):
                part.drop_prob = 0.0
        network(pixels).logits.mean().backward()
        optimizer.step()
        network.eval()
    assert agree()
    other = {
        name: tensor + 0.1 if tensor.is_floating_point() else tensor
        for name, tensor in stock.state_dict().items()
    }
    stock.load_state_dict(other)
    ours.load_state_dict(other)
    assert agree()
    stock.load_state_dict(other, assign=True)
    ours.load_state_dict(copy.deepcopy(other), assign=True)
    assert agree()


def test_sync_batch_norm_conversion_keeps_the_head() -> None:
    """As with `Trainer(sync_batchnorm=True)`; on a CPU only evaluation runs."""
    stock, ours = (network.eval() for network in pair())
    ours = nn.SyncBatchNorm.convert_sync_batchnorm(ours)
    assert isinstance(ours.decode_head.batch_norm, nn.SyncBatchNorm)
    with torch.no_grad():
        assert difference(ours(images((64, 64))).logits, stock(images((64, 64))).logits) < 1e-5


def test_exports() -> None:
    _, ours = pair()
    features = [torch.randn(2, width, side, side) for width, side in ((8, 16), (16, 8), (24, 4), (32, 2))]
    program = torch.export.export(ours.decode_head.eval(), (features,))
    with torch.no_grad():
        assert difference(program.module()(features), ours.decode_head(features)) < 1e-6


def test_comparison_detects_a_wrong_head() -> None:
    """A missing bias is far outside the tolerance."""
    stock, ours = (network.eval() for network in pair())
    ours.decode_head.linear_projections[2].proj.bias.data.zero_()
    with torch.no_grad():
        assert difference(ours(images((64, 64))).logits, stock(images((64, 64))).logits) > 1e-3


def test_bilinear_upsampling_keeps_constants() -> None:
    """The rewrite depends on it, for odd sizes too."""
    flat = torch.full((1, 1, 3, 5), 7.0, dtype=torch.float64)
    upsampled = F.interpolate(flat, size=(17, 24), mode="bilinear", align_corners=False)
    assert (upsampled - 7).abs().max() < 1e-14
