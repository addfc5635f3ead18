"""Randomness with an address, and the class-balanced split drawn from it."""

import hashlib
import json

import torch
from torch import Tensor

from lthlib.errors import ConfigError


def generator(seed: int, *address: str | int) -> torch.Generator:
    """A CPU generator that depends on its address alone, such as (seed, "train", epoch).

    Args:
        seed: any integer.
        *address: what the numbers are for; 1 and "1" are different addresses.

    Returns:
        A fresh torch.Generator on the CPU, seeded by BLAKE2b of seed and address.
    """
    encoded = json.dumps([seed, *address], separators=(",", ":")).encode()
    digest = hashlib.blake2b(encoded, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def split_indices(labels: Tensor, n_validation: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows into training and validation, with as many validation rows of each class.

    Class counts differ by one at most, except where a class is too small to give its share: every
    class keeps at least one training row.

    Args:
        labels: int64 [n], class of each row, from 0.
        n_validation: number of validation rows, at least 0.
        seed: seed of the split; the same seed gives the same split.

    Returns:
        Training rows, int64 [n - n_validation], and validation rows, int64 [n_validation], both
        ascending.

    Raises:
        ConfigError: there are not that many rows to give.
    """
    counts = torch.bincount(labels)
    spare = (counts - 1).clamp(min=0)
    if not 0 <= n_validation <= int(spare.sum()):
        raise ConfigError(
            f"{n_validation} validation images cannot be taken from {len(labels)} images: "
            f"each class must keep one; ask for 0 to {int(spare.sum())}"
        )
    rng = generator(seed, "split")
    shares = _equal_shares(spare, n_validation, rng)
    is_validation = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in enumerate(shares.tolist()):
        rows = (labels == label).nonzero().squeeze(1)
        is_validation[rows[torch.randperm(len(rows), generator=rng)[:share]]] = True
    return (~is_validation).nonzero().squeeze(1), is_validation.nonzero().squeeze(1)


def _equal_shares(spare: Tensor, total: int, rng: torch.Generator) -> Tensor:
    shares = torch.zeros_like(spare)
    shuffled = torch.randperm(len(spare), generator=rng)
    while total > 0:
        open_classes = shuffled[(shares < spare)[shuffled]]
        taking = open_classes[:total]
        equal_share = max(total // len(open_classes), 1)
        added = (spare - shares)[taking].clamp(max=equal_share)
        shares[taking] += added
        total -= int(added.sum())
    return shares
