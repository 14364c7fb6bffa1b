import kornia
import pytest
import torch
import torch.nn.functional as F

from nailseg.training.losses import cross_entropy, focal_loss, lovasz_loss, segmentation_loss, soft_dice_loss


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 9, 7, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (2, 9, 7), generator=generator)
    target[0, :2] = 255
    return logits, target


def test_cross_entropy_matches_torch(batch) -> None:
    logits, target = batch
    torch.testing.assert_close(
        cross_entropy(logits, target), F.cross_entropy(logits, target, ignore_index=255)
    )


def test_cross_entropy_matches_transformers(tiny_folder) -> None:
    from transformers import SegformerForSemanticSegmentation

    network = SegformerForSemanticSegmentation.from_pretrained(tiny_folder).eval()
    pixels = torch.randn(2, 3, 64, 64)
    labels = torch.randint(0, network.config.num_labels, (2, 64, 64))
    labels[:, :8] = 255
    out = network(pixel_values=pixels, labels=labels)
    logits = F.interpolate(out.logits, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(cross_entropy(logits, labels), out.loss)


def dice_by_hand(logits: torch.Tensor, target: torch.Tensor) -> float:
    probability = logits.softmax(1)
    values = []
    for c in (1, 2):
        hit = total = 0.0
        for n in range(len(target)):
            for y in range(target.shape[1]):
                for x in range(target.shape[2]):
                    if target[n, y, x] == 255:
                        continue
                    p, t = probability[n, c, y, x].item(), float(target[n, y, x] == c)
                    hit, total = hit + p * t, total + p + t
        values.append(1 - 2 * hit / total)
    return sum(values) / 2


def test_soft_dice_matches_a_count_by_hand(batch) -> None:
    logits, target = batch
    assert soft_dice_loss(logits, target).item() == pytest.approx(dice_by_hand(logits, target), abs=1e-5)


def test_soft_dice_reaches_zero_and_one() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, 1:3] = 1
    right = F.one_hot(target, 2).permute(0, 3, 1, 2) * 50.0
    assert soft_dice_loss(right, target).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(-right, target).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [255, 0])
def test_batches_without_foreground_have_finite_losses_and_gradients(batch, value: int) -> None:
    logits, target = batch
    losses = segmentation_loss(logits, torch.full_like(target, value))
    losses["loss"].backward()
    assert losses["dice_loss"].item() == 0
    assert torch.isfinite(logits.grad).all()
    if value == 255:
        assert losses["loss"].item() == 0
        assert logits.grad.abs().max() == 0


def test_half_precision_logits_give_a_float32_loss(batch) -> None:
    logits, target = batch
    losses = segmentation_loss(logits.bfloat16(), target)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_weights_scale_the_parts_of_the_loss(batch) -> None:
    logits, target = batch
    losses = segmentation_loss(logits, target, cross_entropy_weight=2.0, dice_weight=0.5)
    torch.testing.assert_close(losses["loss"], 2 * losses["cross_entropy"] + 0.5 * losses["dice_loss"])


def test_lovasz_matches_kornia() -> None:
    logits, target = torch.randn(3, 4, 8, 9, requires_grad=True), torch.randint(0, 4, (3, 8, 9))
    target[1] = target[1].clamp(max=1)  # two classes are absent there
    theirs, ours = kornia.losses.lovasz_softmax_loss(logits, target), lovasz_loss(logits, target)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_lovasz_of_certain_predictions_is_one_minus_iou(batch) -> None:
    _, target = batch
    guess = torch.randint(0, 2, target.shape)
    target = target.where(target != 2, 1)  # the third class is neither there nor predicted
    counted = target != 255
    ious = [
        ((g == c) & (t == c)).sum() / (((g == c) | (t == c)) & here).sum()
        for g, t, here in zip(guess, target, counted, strict=True)
        for c in (0, 1)
    ]
    logits = 100.0 * F.one_hot(guess, 3).movedim(-1, 1)
    assert lovasz_loss(logits, target).item() == pytest.approx((4 - sum(ious).item()) / 6, abs=1e-6)


def test_lovasz_leaves_ignored_pixels_out(batch) -> None:
    logits, target = batch
    cut = lovasz_loss(logits[:1, :, 2:], target[:1, 2:])  # the first two rows of the first image are 255
    torch.testing.assert_close(lovasz_loss(logits[:1], target[:1]), cut)


def test_lovasz_of_ignored_batches_is_zero(batch) -> None:
    logits, target = batch
    loss = lovasz_loss(logits, torch.full_like(target, 255))
    loss.backward()
    assert (loss.item(), logits.grad.abs().max().item()) == (0, 0)
    parts = segmentation_loss(logits, target, 1.0, 0.0, 0.5)
    total = parts["cross_entropy"] + 0.5 * parts["lovasz_loss"]
    torch.testing.assert_close(parts["loss"], total)
    assert "lovasz_loss" not in segmentation_loss(logits, target)


def test_class_weights_match_torch(batch) -> None:
    logits, target = batch
    weights = torch.tensor([0.2, 1.5, 4.0])
    expected = F.cross_entropy(logits, target, weights, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, target, weights), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_matches_kornia(batch, gamma: float) -> None:
    logits, target = batch
    found = focal_loss(logits, target, gamma)
    per_pixel = kornia.losses.focal_loss(
        logits, target, alpha=None, gamma=gamma, reduction="none", ignore_index=255
    ).sum(1)
    torch.testing.assert_close(found, per_pixel[target != 255].mean())
    weighted = focal_loss(logits, target, gamma, torch.ones(3))
    torch.testing.assert_close(weighted, found)
    if gamma == 0:
        torch.testing.assert_close(found, F.cross_entropy(logits, target, ignore_index=255))


def test_weighted_focal_loss_by_hand() -> None:
    probability = torch.tensor([0.9, 0.6, 0.2])
    logits = torch.stack([(1 - probability).log(), probability.log()])[None, :, None]
    target, weights = torch.tensor([[[1, 0, 255]]]), torch.tensor([0.5, 3.0])
    expected = 3 * 0.1**2 * -probability[0].log() + 0.5 * 0.6**2 * -(1 - probability[1]).log()
    torch.testing.assert_close(focal_loss(logits, target, 2.0, weights), expected / 3.5)


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss])
def test_ignored_pixels_only_give_zero(loss) -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = loss(logits, torch.full((1, 3, 3), 255))
    value.backward()
    assert value == 0
    assert logits.grad.abs().max() == 0


def test_the_sum_has_the_focal_loss(batch) -> None:
    logits, target = batch
    weights = torch.tensor([0.2, 1.5, 4.0])
    found = segmentation_loss(
        logits, target, 0.5, 0.0, focal_weight=2.0, focal_gamma=1.0, class_weights=weights
    )
    expected = 0.5 * cross_entropy(logits, target, weights) + 2 * focal_loss(logits, target, 1.0, weights)
    torch.testing.assert_close(found["loss"], expected)
