import pytest
from lightning.pytorch import Trainer

from nailseg.data import SegmentationDataModule
from nailseg.errors import ConfigError
from nailseg.training import SegmentationTask


def test_a_loss_without_any_weight_names_the_options() -> None:
    names = ("cross_entropy", "dice", "lovasz", "focal")
    options = ", ".join(f"--model.{name}_weight" for name in names)
    with pytest.raises(ConfigError, match=f"{options}: expected a weight above 0 for one of them"):
        SegmentationTask(cross_entropy_weight=0, dice_weight=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ["background", "road"]}, "same class_names .*'nail'.* in the data and .*'road'"),
        (
            {"class_names": ["background", "nail", "skin"]},
            "task class_names=data.class_names; or .*--data.classes",
        ),
        ({"resize": "squash"}, "same resize in data and model, found keep in the data and squash"),
        ({"image_size": 96}, "same image_size in data and model, found 64 in the data and 96"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_a_task_and_its_data_must_agree(drawn, tiny_folder, changes: dict, words: str, verb: str) -> None:
    if verb != "fit" and "image_size" in changes:
        pytest.skip("a model may be measured at another size")
    data = SegmentationDataModule(csv=str(drawn / "dataset.csv"), size=64, workers=0, cache="off")
    own = {"class_names": data.class_names, "image_size": 64} | changes
    task = SegmentationTask(weights=str(tiny_folder), **own)
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=words):
        getattr(trainer, verb)(task, data)
    assert trainer.global_step == 0
