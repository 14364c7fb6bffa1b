"""The order in which the rows of a split are read, and the process that reads each row.

Both samplers derive from torch's `DistributedSampler`, because Lightning recognizes by it that the rows are
already divided among the processes. It would wrap any other sampler and evaluate some rows twice.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from nailseg.errors import ConfigError

MAX_MASK_PIXELS = 2**24
"""Most original pixels in an evaluation batch, so that logits restored to that size stay below about 200 MB.
Prediction has its own limit, because this one decides the last digits of test results and must not change."""


class EpochSampler(DistributedSampler):
    """Every row once per epoch (or every stratum equally often), in an order of (seed, epoch) alone.

    Yields (epoch, row). The epoch travels with the row, because persistent workers hold a copy of the data
    set that is not updated with the epoch.

    >>> sorted(EpochSampler(length=3, seed=0))
    [(0, 0), (0, 1), (0, 2)]

    Args:
        length: Number of rows, at least 1.
        seed: Seed of the order.
        world_size: Number of processes.
        rank: Number of this process, from 0.
        strata: The stratum of each row, to show all strata equally often: rows of a small stratum several
            times in an epoch, of a large one only some, others in each epoch. An epoch keeps its length.
        position: Returns the present epoch and how many of its rows were read before, in a run that
            continues in the middle of an epoch; by default `set_epoch` names the epoch, from its start.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        strata: Sequence[str] | None = None,
        position: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(range(length), num_replicas=world_size, rank=rank, seed=seed)
        self.strata = None if strata is None else np.unique(strata, return_inverse=True)[1]
        # equal shares, or processes would wait for the one with more; each epoch leaves out other rows
        self.num_samples = max(1, length // world_size)
        self.total_size = self.num_samples * world_size
        self.position = position

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """This process's (epoch, row) pairs of the present epoch that were not read before."""
        epoch, read = self.position() if self.position else (self.epoch, 0)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.dataset))
        if self.strata is not None:
            members = [order[self.strata[order] == stratum] for stratum in range(self.strata.max() + 1)]
            share = -(-len(order) // len(members))
            order = rng.permutation(np.concatenate([np.resize(rows, share) for rows in members]))
        # np.resize repeats the order when there are fewer rows than processes
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        return iter([(epoch, int(row)) for row in share[read:]])


class EqualSizeSampler(DistributedSampler):
    """Batches of rows whose images have one size, divided among the processes; each row exactly once.

    Yields lists of at most `batch_size` rows, for a `DataLoader(batch_size=None)`. `sizes` are the rows'
    original heights and widths; `world_size` and `rank` are those of `EpochSampler`.

    Raises:
        ConfigError: There are fewer rows than processes.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, int]], batch_size: int, world_size: int = 1, rank: int = 0
    ) -> None:
        super().__init__(range(len(sizes)), num_replicas=world_size, rank=rank, shuffle=False)
        if len(sizes) < world_size:
            found = f"found {len(sizes)} in the split. Run it with --trainer.devices {max(1, len(sizes))}"
            raise ConfigError(f"expected at least one image for each of the {world_size} processes, {found}.")
        self.batches = equal_size_batches(sizes, batch_size, at_least=world_size)[rank::world_size]
        self.num_samples = len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """This process's batches; the same in every epoch."""
        return map(list, self.batches)


def equal_size_batches(
    sizes: Sequence[tuple[int, int]], batch_size: int, at_least: int = 1, max_pixels: int = MAX_MASK_PIXELS
) -> list[list[int]]:
    """Groups rows of equal image size; `sizes` are the original (height, width) of each row.

    A batch has at most `batch_size` rows and `max_pixels` original pixels, unless one image alone has more.
    Large batches are halved until there are `at_least` of them.

    >>> equal_size_batches([(10, 20), (30, 30), (10, 20), (10, 20)], batch_size=2)
    [[0, 2], [1], [3]]

    Returns:
        Batches of row numbers, in the order of their first rows; rows ascend inside each.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for row, size in enumerate(sizes):
        groups.setdefault(tuple(size), []).append(row)
    batches = []
    for (height, width), rows in groups.items():
        step = max(1, min(batch_size, max_pixels // (height * width)))
        batches += [rows[start : start + step] for start in range(0, len(rows), step)]
    # a process without any batch would skip the epoch's end, where the others wait for its counts
    while len(batches) < at_least and max(map(len, batches)) > 1:
        longest = batches.pop(batches.index(max(batches, key=len)))
        middle = len(longest) // 2
        batches += [longest[:middle], longest[middle:]]
    return sorted(batches)
