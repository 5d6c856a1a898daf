"""Settings of a general corpus in shards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class ShardArguments:
    """A general corpus that is too large for one index or one machine, in shards: the same corpus comes out."""

    num_shards: int | None = field(
        default=None,
        metadata={
            "help": "Cut the general corpus into so many shards. Without --shard and --merge all are done from here, "
            "then merged. Default: one index."
        },
    )
    shard: int | None = field(
        default=None,
        metadata={
            "help": "Do what can be done for one shard, counted from 0: read it, and once all were read, search it. "
            "So it is run twice for every shard."
        },
    )
    merge: bool = field(default=False, metadata={"help": "Make the corpus of shards that were all searched."})
    runner: Literal["processes", "ray"] = field(
        default="processes",
        metadata={"help": "Without --shard and --merge: shards by processes of this machine, or by tasks of Ray."},
    )
    shard_workers: int | None = field(
        default=None,
        metadata={"help": "Processes at a time; they share the cores. Default: one per core. Each holds a shard."},
    )

    def __post_init__(self) -> None:
        """Check the numbers, and what needs or excludes what."""
        for name in ("num_shards", "shard_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`--{name}` is {value}; it must be at least 1.")
        if self.runner not in ("processes", "ray"):
            raise ValueError(f"`--runner` is {self.runner!r}; allowed are ['processes', 'ray'].")
        if self.num_shards is None:
            if self.shard is not None or self.merge:
                raise ValueError("`--shard` and `--merge` need `--num_shards`: of how many shards.")
        elif self.shard is not None and not 0 <= self.shard < self.num_shards:
            raise ValueError(
                f"`--shard` is {self.shard}; of `--num_shards {self.num_shards}` it must be 0 to "
                f"{self.num_shards - 1}: shards are counted from 0."
            )
        if self.shard is not None and self.merge:
            raise ValueError("`--shard` does one shard, `--merge` makes the corpus of all: give one of them.")
