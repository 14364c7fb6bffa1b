"""One list of work over several processes, by Lightning Fabric: its own, or those that torchrun started."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nailseg.errors import ConfigError, NailsegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.fabric import Fabric

    Work = Callable[[list[Any], int, str | None], Any]


def rank() -> int:
    """Which of torchrun's processes this one is; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def is_split(devices: int) -> bool:
    """Whether there are several processes, to be started or by torchrun."""
    return devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1


def run_split(work: Work, jobs: list[Any], devices: int, device: str | None) -> list[Any]:
    """Gives process r of n the jobs r, r + n, r + 2n …

    Args:
        work: called with a process's jobs, its rank and its device; can be pickled, as its result can.
        jobs: the same list in every process.
        devices: processes to start; torchrun's own number counts if it started them.
        device: `cpu` or `cuda`; None is `cuda` if there is a GPU. Process r takes GPU r.

    Returns:
        The result of each process, by rank; under torchrun in every process.

    Raises:
        ConfigError: no such device, or not as many.
        NailsegError: what `work` raised in any process, after the others are through.
    """
    import torch
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.fabric.strategies import DDPStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device}: expected cpu or cuda for several processes. Leave it out.")
    by_torchrun = TorchElasticEnvironment.detect()
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if by_torchrun else devices
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment() if by_torchrun else LightningEnvironment(),
        process_group_backend="gloo",  # only a few words are exchanged, and the CPU has nothing else
        timeout=timedelta(days=30),  # who is through first waits for the others
        start_method="popen" if by_torchrun else "spawn",
    )
    try:
        fabric = Fabric(
            accelerator=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            devices=here,
            num_nodes=int(os.environ["WORLD_SIZE"]) // here if by_torchrun else 1,
            strategy=strategy,
        )
    except (MisconfigurationException, RuntimeError) as error:
        raise ConfigError(f"--devices {here}: expected as many devices on this machine. {error}") from error
    outcomes = fabric.launch(_part, work, jobs, device)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def _part(fabric: Fabric, work: Work, jobs: list[Any], device: str | None) -> list[Any]:
    import torch

    fabric.barrier()  # nobody writes before all have looked at what is there
    number = fabric.global_rank
    try:
        own = str(fabric.device) if fabric.device.type != "cpu" else device
        outcome = work(jobs[number :: fabric.world_size], number, own)
    except (NailsegError, OSError) as error:  # told to all, or they would wait for this one
        outcome = error
    outcomes = [None] * fabric.world_size
    torch.distributed.all_gather_object(outcomes, outcome)
    torch.distributed.destroy_process_group()
    return outcomes
