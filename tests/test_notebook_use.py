"""The README's Python example: training without the command line and without a run folder."""

from lightning.pytorch import Trainer

import nailseg
from nailseg.data import SegmentationDataModule
from nailseg.training import SegmentationTask


def test_a_model_trained_in_python_can_be_saved_and_loaded(drawn, tiny_folder, tmp_path) -> None:
    data = SegmentationDataModule(csv=drawn / "dataset.csv", root=None, size=64, batch_size=4, workers=0)
    task = SegmentationTask(weights=str(tiny_folder), class_names=data.class_names, image_size=64)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert task.summary["n_images"] == len(data.rows("test"))
    folder = task.save(tmp_path / "model")
    result = nailseg.load(folder, device="cpu")(drawn / data.rows("test")[0].image)
    assert result.probability.shape == (2, *result.mask.shape)
    assert abs(result.probability.sum(0) - 1).max() < 1e-5
    assert result.overlay().shape == (*result.mask.shape, 3)
