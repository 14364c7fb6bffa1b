"""Distributes work over several processes with Lightning Fabric: started here, or by torchrun."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nailseg.errors import ConfigError, NailsegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.fabric import Fabric


def run_distributed(
    work: Callable[..., list[Any]], jobs: list[Any], devices: int, device: str | None
) -> list[Any]:
    """Assigns the jobs r, r + n, r + 2n … to process r of n; `ConfigError` without as many devices.

    Args:
        work: Called with the jobs of a process, its rank and its device. It and its results can be pickled.
        jobs: The same list in every process.
        devices: As in `predict_files`.
        device: `cpu` or `cuda`; None is `cuda` if there is a GPU. Process r uses GPU r.

    Returns:
        The results of all processes. An error of one is raised after the others have finished.
    """
    import torch
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.fabric.strategies import DDPStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device}: expected cpu or cuda for several processes. Leave it out.")
    nodes = 1
    if torchrun := TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment() if torchrun else LightningEnvironment(),
        process_group_backend="gloo",  # works without a GPU, and only short messages are exchanged
        timeout=timedelta(days=30),  # the first process to finish waits for the others
        start_method="popen" if torchrun else "spawn",
    )
    accelerator = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy)
    except (MisconfigurationException, RuntimeError) as error:
        message = f"--devices {devices}: expected as many devices on this machine. {error}"
        raise ConfigError(message) from error
    outcomes = fabric.launch(_run_process, work, jobs, device)
    if errors := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
        raise errors[0]
    return [result for outcome in outcomes for result in outcome]


def _run_process(fabric: Fabric, work: Callable, jobs: list[Any], device: str | None) -> list[Any]:
    from torch import distributed

    fabric.barrier()  # nothing is written before all processes have checked which files exist
    rank, count = fabric.global_rank, fabric.world_size
    try:
        outcome = work(jobs[rank::count], rank, device if fabric.device.type == "cpu" else str(fabric.device))
    except (NailsegError, OSError) as error:  # an exception would leave the other processes waiting
        outcome = error
    outcomes = [None] * count
    distributed.all_gather_object(outcomes, outcome)
    distributed.destroy_process_group()
    return outcomes
