"""What many tests share: a network small enough to train within a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TINY = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],  # heads must divide widths
    "decoder_hidden_size": 16,
}
"""53,450 parameters with two classes, 0.03 s a training step at 64x64."""


def assert_same_metrics(found: Any, expected: Any) -> None:
    """Two metrics.json agree to 1e-6; a best checkpoint was written before the threshold was chosen."""
    if isinstance(expected, dict):
        found, expected = (
            {k: v for k, v in d.items() if "threshold" not in k and k != "model"} for d in (found, expected)
        )
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same_metrics(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_metrics(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-6) if isinstance(expected, float) else expected)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it: the tiny network, two classes, fixed random weights."""
    import torch

    from nailseg.models.segformer import SegFormer

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SegFormer.from_config(TINY, ["background", "nail"])
    network.hf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mixed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose predictions are mixed: an untrained one may well predict background everywhere."""
    import torch

    from nailseg.checkpoints import model_folder
    from nailseg.models.segformer import SegFormer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SegFormer.from_config(TINY, ["background", "nail"]).eval()
        noise = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        network.hf.decode_head.classifier.weight.mul_(20)
        margin = network(noise)[:, 1] - network(noise)[:, 0]
        network.hf.decode_head.classifier.bias[1] -= margin.median()
    folder = tmp_path_factory.mktemp("mixed") / "mixed"
    return model_folder.save_model_folder(
        folder, network, model_folder.describe_network(network, image_size=64)
    )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set with its dataset.csv: 12 train, 6 val, 6 test images of about 96 pixels."""
    from nailseg.data.splitting.index import index_dataset
    from nailseg.data.synthetic.sample import write_sample

    folder = tmp_path_factory.mktemp("drawn")
    write_sample(folder, count=24, size=96)
    index_dataset(folder, val=0.25, test=0.25)
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny networks gain nothing from threads; on a busy machine their barriers cost more than the work."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go to the tests' own folder, in processes started by tests as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(autouse=True)
def own_log_lines():
    """The command line takes the package's log for itself; the next test gets it back."""
    import logging

    yield
    logger = logging.getLogger("nailseg")
    logger.handlers, logger.propagate = [], True
