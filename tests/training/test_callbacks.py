import csv
from types import SimpleNamespace

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from nailseg.training.callbacks import AveragedWeights, MetricsTable


def test_average_is_exponential_with_warm_up() -> None:
    callback = AveragedWeights(decay=0.5)
    network = torch.nn.BatchNorm1d(1)
    average = AveragedModel(network, use_buffers=True, multi_avg_fn=callback._average)
    expected = None
    for step in range(8):
        with torch.no_grad():
            network.weight.fill_(step)
            network.running_mean.fill_(-step)
            network.num_batches_tracked.fill_(step)
        average.update_parameters(network)
        # by hand: the first update copies, then min(decay, (1 + n) / (10 + n))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
        assert average.module.weight.item() == pytest.approx(expected)
        assert average.module.running_mean.item() == pytest.approx(-expected)
        assert average.module.num_batches_tracked.item() == step


def test_a_short_run_forgets_its_start() -> None:
    callback = AveragedWeights(decay=0.999)
    average, current = torch.zeros(1), torch.ones(1)
    for n in range(1, 60):
        callback._average([average], [current], torch.tensor(n))
    assert average.item() > 0.99, "with the final decay from the first step on it would be 0.06"


def write(table: MetricsTable, epoch: int, validated: bool, **metrics: float) -> None:
    trainer = SimpleNamespace(
        is_global_zero=True,
        sanity_checking=False,
        current_epoch=epoch,
        lr_scheduler_configs=[SimpleNamespace(scheduler=SimpleNamespace(get_last_lr=lambda: [0.1]))],
        global_step=10 * (epoch + 1),
        callback_metrics={name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()},
    )
    if validated:
        table.on_validation_end(trainer, None)
    table.on_train_epoch_end(trainer, None)


def test_metrics_table_has_a_row_per_epoch_and_no_stale_numbers(tmp_path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    write(table, 0, True, train_loss=1.0, val_miou=0.5)
    write(table, 1, False, train_loss=0.5, val_miou=0.5)
    write(table, 2, True, train_loss=0.8, val_miou=0.6, val_new=1.0)
    write(table, 2, True, train_loss=0.25, val_miou=0.75)  # the epoch again, after a resume
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["val/miou"]) for row in rows] == [("0", "0.5"), ("1", ""), ("2", "0.75")]
    assert [row["train/loss"] for row in rows] == ["1.0", "0.5", "0.25"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
