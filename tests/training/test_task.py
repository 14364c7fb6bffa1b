import pytest

from nailseg.errors import ConfigError
from nailseg.training import SegmentationTask


def test_a_loss_without_any_weight_names_the_options() -> None:
    options = "--model.cross_entropy_weight, --model.dice_weight, --model.lovasz_weight"
    with pytest.raises(ConfigError, match=f"{options}: expected a weight above 0 for one of them"):
        SegmentationTask(cross_entropy_weight=0, dice_weight=0)
