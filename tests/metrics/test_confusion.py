import pytest
import torch
from monai.metrics import compute_dice
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torchmetrics.classification import MulticlassJaccardIndex

from nailseg.metrics.confusion import ConfusionMatrix, class_index, confusion_matrix, dice, iou, mean_defined


def random_masks(n_classes: int, seed: int = 0, shape=(3, 17, 23)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, n_classes, shape, generator=generator)
    target = torch.randint(0, n_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    return prediction, target


ADVERSARIAL = {
    "empty": (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)),
    "full": (torch.ones(1, 4, 4), torch.ones(1, 4, 4)),
    "all ignored": (torch.ones(1, 4, 4), torch.full((1, 4, 4), 255)),
    "one pixel": (torch.eye(4)[None], torch.nn.functional.one_hot(torch.tensor([[0, 0, 0, 0]]), 4).float()),
}


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_confusion_matrix_matches_sklearn(n_classes: int, dtype: torch.dtype) -> None:
    prediction, target = random_masks(n_classes)
    found = confusion_matrix(prediction.to(dtype), target, n_classes)
    assert found.dtype == torch.int64
    for n in range(len(target)):
        counted = target[n] != 255
        expected = sklearn_confusion_matrix(
            target[n][counted], prediction[n][counted], labels=range(n_classes)
        )
        assert found[n].tolist() == expected.tolist()


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_confusion_matrix_of_extreme_masks(case: str) -> None:
    prediction, target = (mask.long() for mask in ADVERSARIAL[case])
    matrix = confusion_matrix(prediction, target, 2)[0]
    for true in range(2):
        for predicted in range(2):
            by_hand = int(((target == true) & (prediction == predicted)).sum())
            assert matrix[true, predicted] == by_hand


def test_both_counting_methods_agree() -> None:
    prediction, target = random_masks(2)
    assert torch.equal(
        confusion_matrix(prediction, target, 2), confusion_matrix(prediction, target, 3)[:, :2, :2]
    )


@pytest.mark.parametrize("n_classes", [2, 4])
def test_iou_matches_torchmetrics_over_pixels(n_classes: int) -> None:
    prediction, target = random_masks(n_classes)
    reference = MulticlassJaccardIndex(n_classes, average=None, ignore_index=255)
    metric = ConfusionMatrix(n_classes)
    for one_prediction, one_target in zip(prediction, target, strict=True):
        reference.update(one_prediction, one_target)
        metric.update(one_prediction[None], one_target[None])
    torch.testing.assert_close(iou(metric.compute()).float(), reference.compute())


@pytest.mark.parametrize("n_classes", [2, 4])
def test_dice_matches_monai(n_classes: int) -> None:
    prediction, target = random_masks(n_classes)
    target[0][target[0] == 1] = 0  # a false alarm
    prediction[1] = target[1].clamp(max=n_classes - 1)  # errors only where pixels are ignored
    counted = target != 255
    masks = [
        torch.nn.functional.one_hot((mask * counted).long(), n_classes).movedim(-1, 1)
        for mask in (prediction, target)
    ]
    expected = compute_dice(
        *(m * counted[:, None] for m in masks), include_background=True, ignore_empty=False
    )
    torch.testing.assert_close(dice(confusion_matrix(prediction, target, n_classes)).float(), expected)


def test_dice_follows_from_iou() -> None:
    matrix = confusion_matrix(*random_masks(3), 3).sum(0)
    j = iou(matrix)
    torch.testing.assert_close(dice(matrix), 2 * j / (1 + j))


def test_counts_stay_exact_where_float32_would_not() -> None:
    metric = ConfusionMatrix(2)
    metric.matrix += torch.tensor([[2**24, 0], [0, 0]])
    metric.update(torch.zeros(1, 1, 1, dtype=torch.long), torch.zeros(1, 1, 1, dtype=torch.long))
    assert metric.compute()[0, 0] == 2**24 + 1


def test_absent_class_is_nan_and_left_out() -> None:
    matrix = torch.tensor([[5, 0, 0], [0, 3, 0], [0, 0, 0]])
    assert iou(matrix).isnan().tolist() == [False, False, True]
    assert mean_defined(iou(matrix)) == 1.0
    assert mean_defined(torch.tensor([torch.nan])) == 0.0


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_class_index_is_argmax_ties_included(n_classes: int) -> None:
    logits = torch.randint(-2, 3, (2, n_classes, 9, 11), generator=torch.Generator().manual_seed(1)).float()
    assert torch.equal(class_index(logits).long(), logits.argmax(1))
