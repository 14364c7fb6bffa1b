"""Networks that transformers does not know: config.json and model.safetensors in a form of our own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file
from torch import Tensor

from nailseg.errors import WeightsError
from nailseg.models import pretrained
from nailseg.models.base import Network
from nailseg.models.loading import choose_class_names


class StandaloneNetwork(Network):
    """A `Network` without a transformers model inside.

    An architecture defines `_build`, which also sets `names`; `random_config`, `encoder`, `fields` and
    `logits`.

    Attributes:
        classifier: name of the module whose size depends on the number of classes.
        names: the classes' names, in index order.
    """

    classifier: ClassVar[str]
    names: list[str]

    @property
    def class_names(self) -> list[str]:
        """The classes' names, in index order."""
        return list(self.names)

    def fields(self) -> dict[str, Any]:
        """Returns what config.json has besides the type and the classes, in plain values."""
        raise NotImplementedError

    def config_dict(self) -> dict[str, Any]:
        labels = {str(index): name for index, name in enumerate(self.names)}
        return {"model_type": self.model_types[0], "id2label": labels, **self.fields()}

    def _load(self, source: pretrained.Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        names, new_head = choose_class_names(source, True, class_names)
        tensors = pretrained.read_tensors(source.folder)
        try:
            self._build(source.config, names, drop_path)
            if new_head:
                tensors |= self.get_submodule(self.classifier).state_dict(prefix=f"{self.classifier}.")
            self.load_state_dict(tensors)
        except (RuntimeError, TypeError) as error:
            raise WeightsError(f"{source.folder}: its weights do not fit its config.json. {error}") from error
        return new_head

    def save(self, folder: Path) -> None:
        tensors = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.dumps(self.config_dict(), indent=2)
        (folder / "config.json").write_text(f"{config}\n", encoding="utf-8")

    @classmethod
    def load_reference(cls, folder: Path) -> Callable[[Tensor], Tensor]:
        """See `Network`; plain transformers cannot load this network."""
        return cls(str(folder)).eval().logits
