"""The architectures by name: what `--model.name` chooses between."""

from __future__ import annotations

from typing import Literal, get_args

from nailseg.errors import ConfigError
from nailseg.models.base import Network

Architecture = Literal["segformer", "mix_transformer", "vit", "auto"]

INTERCHANGEABLE = frozenset({"segformer", "mix_transformer"})
"""The same network written twice: each opens the other's folders, though not its checkpoints."""


def network_class(name: str) -> type[Network]:
    """The class of an architecture; `SegFormer`'s constructor and `from_config` show what all of them take.

    Raises:
        ConfigError: no architecture of that name.
    """
    if name == "segformer":
        from nailseg.models.segformer import SegFormer as chosen
    elif name == "mix_transformer":
        from nailseg.models.mix_segformer import MixSegFormer as chosen
    elif name == "vit":
        from nailseg.models.vit import ViT as chosen
    elif name == "auto":
        from nailseg.models.auto import AutoNetwork as chosen
    else:
        raise ConfigError(
            f"--model.name: expected one of {', '.join(get_args(Architecture))}, found {name!r}."
        )
    return chosen
