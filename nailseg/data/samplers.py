"""In which order, and by which process, the rows of a split are read.

Both samplers derive from torch's `DistributedSampler` because that is how Lightning recognises a sampler that
has already divided the rows among the processes; any other it would wrap, and evaluate some rows twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from nailseg.errors import ConfigError

MAX_BATCH_PIXELS = 2**24
"""Evaluation restores logits to the original size: 16 million pixels a batch keep that below about 200 MB."""


class EpochSampler(DistributedSampler):
    """Every row once per epoch (or every stratum equally often), in an order of (seed, epoch) alone.

    Yields (epoch, row): the epoch has to travel with the row, because persistent workers hold a copy of the
    data set that never hears of a new epoch.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        strata: Sequence[str] | None = None,
    ) -> None:
        """Sets up one process's share.

        Args:
            length: Number of rows, at least 1.
            seed: Seed of the order.
            world_size: Number of processes.
            rank: Number of this process, from 0.
            strata: Of each row, if all strata shall be seen equally often: the rows of a small one several
                times in an epoch, of a large one only some, others in each epoch. An epoch keeps its length.
        """
        super().__init__(range(length), num_replicas=world_size, rank=rank, seed=seed)
        self.strata = None if strata is None else np.unique(strata, return_inverse=True)[1]
        # equal shares, or one process waits for ever; the few rows left out are others in each epoch
        self.num_samples = max(1, length // world_size)
        self.total_size = self.num_samples * world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """This process's (epoch, row) pairs of the present epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.dataset))
        if self.strata is not None:
            members = [order[self.strata[order] == stratum] for stratum in range(self.strata.max() + 1)]
            share = -(-len(order) // len(members))
            order = rng.permutation(np.concatenate([np.resize(rows, share) for rows in members]))
        # np.resize repeats the order when there are fewer rows than processes
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        return iter([(self.epoch, int(row)) for row in share])


class EqualSizeSampler(DistributedSampler):
    """Batches of rows whose images have one size, dealt out to the processes; none left out or repeated.

    Yields lists of rows, for a `DataLoader(batch_size=None)`.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, int]], batch_size: int, world_size: int = 1, rank: int = 0
    ) -> None:
        """Sets up one process's share.

        Args:
            sizes: Original height and width of each row, in the order of the rows.
            batch_size: Most rows in a batch.
            world_size: Number of processes.
            rank: Number of this process, from 0.

        Raises:
            ConfigError: There are fewer rows than processes.
        """
        super().__init__(range(len(sizes)), num_replicas=world_size, rank=rank, shuffle=False)
        if len(sizes) < world_size:
            raise ConfigError(
                f"evaluation: expected at least one image for each of the {world_size} processes, found "
                f"{len(sizes)} in the split. Run it with --trainer.devices {max(1, len(sizes))}."
            )
        self.batches = equal_size_batches(sizes, batch_size, at_least=world_size)[rank::world_size]
        self.num_samples = len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """This process's batches; the same in every epoch."""
        return iter([list(batch) for batch in self.batches])


def equal_size_batches(
    sizes: Sequence[tuple[int, int]], batch_size: int, at_least: int = 1, max_pixels: int = MAX_BATCH_PIXELS
) -> list[list[int]]:
    """Groups rows of equal image size.

    Args:
        sizes: Original height and width of each row.
        batch_size: Most rows in a batch.
        at_least: Least number of batches; large ones are halved until there are as many.
        max_pixels: Most original pixels in a batch, unless one image alone has more.

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
        longest = max(batches, key=len)
        batches.remove(longest)
        middle = len(longest) // 2
        batches += [longest[:middle], longest[middle:]]
    return sorted(batches)
