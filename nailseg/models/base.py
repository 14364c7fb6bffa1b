"""The interface of all architectures: uint8 images in, logits of the same size out, normalized inside."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel

from nailseg.errors import WeightsError
from nailseg.models import pretrained
from nailseg.types import DEFAULT_CLASSES, check_class_names

RANDOM = "-random"
"""Ends the name of an architecture where it stands for random weights, as in `b0-random`."""


class Network(nn.Module):
    """A segmentation network: the interface that training, model folders and inference use.

    An architecture defines `random_config`, `_build`, `_load` and `encoder`; the other methods suit those of
    transformers.

    Args:
        weights: what to start from; each architecture documents what it takes.
        class_names: order is the class index, the first is background. None keeps a segmentation checkpoint's
            own labels; random weights and encoders without a head take background and nail. Names that differ
            from the checkpoint's give it a new classifier; all other weights stay.
        drop_path: stochastic depth of the last block, in architectures that have it.

    Attributes:
        architecture: its name, as `--model.name` takes it.
        model_types: what config.json may name as its `model_type`; none accepts every type.
        fixed_size: height and width in pixels of the only input it takes; None if it takes any size.
        hf: the transformers model inside, if there is one.
        hf_config: transformers' config, which names the classes.
        origin: `weights` (where the weights came from) and `licence`.
        new_head: True if the classifier is new and untrained.
        mean: float (1, 3, 1, 1), RGB mean of images in 0..1; not part of the state dict.
        std: as `mean`, standard deviation.

    Raises:
        WeightsError: weights that cannot be found or do not fit.
        ConfigError: class names that cannot be used.
    """

    architecture: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]] = ()
    random_mean: ClassVar[tuple[float, ...]] = pretrained.IMAGENET_MEAN
    random_std: ClassVar[tuple[float, ...]] = pretrained.IMAGENET_STD
    hf: PreTrainedModel
    hf_config: PreTrainedConfig
    fixed_size: int | None = None
    mean: Tensor
    std: Tensor

    def __init__(
        self, weights: str, class_names: Sequence[str] | None = None, drop_path: float = 0.1
    ) -> None:
        super().__init__()
        weights = str(weights)
        name = weights if Path(weights).is_dir() else weights.removesuffix(RANDOM)
        config = self.random_config(name)
        if config is not None and name == weights:
            raise WeightsError(
                f"weights {weights!r}: expected weights, found an architecture. Give '{weights}{RANDOM}' for "
                f"random weights, or pretrained ones: 'OpenGVLab/pvt_v2_b0' … b5 (Apache-2.0), "
                f"'nvidia/mit-b0' … b5 (non-commercial), 'nailseg-b0'."
            )
        if config is not None:
            names = DEFAULT_CLASSES if class_names is None else class_names
            self._build(config, check_class_names(names), drop_path)
            origin = {"weights": f"{name}, random weights", "licence": pretrained.NO_LICENCE}
            self._complete(self.random_mean, self.random_std, origin, new_head=True)
        else:
            source = pretrained.find_weights(weights, self.model_types)
            new_head = self._load(source, class_names, drop_path)
            pretrained.warn_if_non_commercial(source.origin)
            self._complete(source.mean, source.std, source.origin, new_head)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        class_names: Sequence[str],
        drop_path: float = 0.1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        origin: dict[str, str] | None = None,
    ) -> Self:
        """Builds a network with random weights without any file: for checkpoints, and tiny ones for tests.

        Args:
            config: content of a config.json, as `config_dict` returns it; missing fields have defaults.
            class_names: order is the class index.
            drop_path: as in the constructor.
            mean: three values, for images in 0..1; None takes those of random weights.
            std: as `mean`.
            origin: of the weights that will be loaded.
        """
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._build(config, check_class_names(class_names), drop_path)
        origin = origin or {"weights": "random weights", "licence": pretrained.NO_LICENCE}
        self._complete(mean or self.random_mean, std or self.random_std, origin, new_head=True)
        return self

    def _complete(
        self, mean: Sequence[float], std: Sequence[float], origin: dict[str, str], new_head: bool
    ) -> None:
        self.train()  # from_pretrained leaves the module in eval mode, and Lightning does not change it
        self.origin, self.new_head = dict(origin), new_head
        for name, values in (("mean", mean), ("std", std)):
            # not persistent: the state dict stays that of transformers
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @staticmethod
    def random_config(architecture: str) -> dict[str, Any] | None:
        """Returns the config of an architecture's name, without `-random`; None for every other name."""
        raise NotImplementedError

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        """Creates the modules with random weights."""
        raise NotImplementedError

    def _load(self, source: pretrained.Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        """Creates the modules and loads their weights; returns whether the classifier is new."""
        raise NotImplementedError

    @property
    def encoder(self) -> nn.Module:
        """The part that may be pretrained; all other parameters belong to the head."""
        raise NotImplementedError

    @property
    def class_names(self) -> list[str]:
        """The classes' names, in index order."""
        return [self.hf_config.id2label[index] for index in range(self.hf_config.num_labels)]

    def config_dict(self) -> dict[str, Any]:
        """Returns the content of its config.json in plain values; `from_config` builds the same network."""
        return json.loads(self.hf_config.to_json_string(use_diff=False))

    def save(self, folder: Path) -> None:
        """Writes config.json and model.safetensors into an existing folder."""
        self.hf.save_pretrained(folder)

    @classmethod
    def load_reference(cls, folder: Path) -> Callable[[Tensor], Tensor]:
        """Loads a saved folder without nailseg; returns a function that must agree with `logits`."""
        plain = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
        return lambda pixels: plain(pixel_values=pixels).logits

    def logits(self, pixels: Tensor) -> Tensor:
        """Maps normalized images, float (N, 3, H, W), to logits (N, C, h, w) of the network's output size."""
        return self.hf(pixel_values=pixels).logits

    def forward(self, image: Tensor) -> Tensor:
        """Segments a batch.

        Args:
            image: (N, 3, H, W), RGB, uint8 or float, 0..255; of `fixed_size`, or of any size, best a
                multiple of 32.

        Returns:
            float (N, C, H, W): logits at the images' size.
        """
        logits = self.logits(normalize(image, self.mean, self.std))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


def normalize(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalizes images (N, 3, H, W), 0..255, with mean and standard deviation as in `Network`; to float."""
    return (image.to(mean.dtype) - 255 * mean) / (255 * std)
