"""The exact k-th largest of any number of values on any number of ranks.

A radix select: one histogram of 2**11 counters per digit, summed over ranks. Nothing is sorted or gathered, the
messages have a fixed size (16 KiB each, 3 for a float32), and there is no 2**24 limit as in torch.quantile.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlvr.maths.masked import reduce_sum

DIGIT_BITS = 11
CACHED_KEYS = 1 << 22
"""Keys with the right first digits that are held between passes: 16 MiB for float32, 32 MiB for wide keys. Where more
match, all are read again."""

FLOAT_BITS = 32
HASH_BITS = 63
NO_FLOAT = -(1 << 31)
"""The key of float32 that stands for no key; of all bit patterns only one of NaN would have it."""


class Cut(NamedTuple):
    """The k-th largest key, and how many keys on all ranks are larger than it and equal to it."""

    key: int
    larger: int
    equal: int


def chunk_size(device: torch.device) -> int:
    """Values to work on at once, which bounds the extra memory: what fills a GPU, or stays in a CPU's cache.

    On a CPU it stays below torch's grain size of 2**15: larger chunks wake the other threads for every small operation,
    which is no faster on idle cores and up to a hundred times slower on busy ones.
    """
    return (1 << 15) - 1 if device.type == "cpu" else 1 << 22


def sortable_keys(values: Tensor) -> Tensor:
    """Map float32 values to integers of the same order: equal iff equal, -0.0 counted as 0.0.

    Args:
        values: (...) floats, compared in float32; NaN has no place in an order.

    Returns:
        (...) int32 above `NO_FLOAT`, half the memory and time of int64.
    """
    bits = (values.float() + 0.0).view(torch.int32)
    return (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)


def only(keys: Tensor, mask: Tensor) -> Tensor:
    """The keys of `sortable_keys` where the mask is true and `NO_FLOAT` elsewhere, in place.

    A product of the keys counted from `NO_FLOAT`, since `torch.where` takes twice as long.
    """
    return keys.bitwise_xor_(NO_FLOAT).mul_(mask).bitwise_xor_(NO_FLOAT)


def from_sortable_key(key: int) -> float:
    """The float32 value that `sortable_keys` mapped to `key`."""
    bits = torch.tensor(key, dtype=torch.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32))


def kth_largest_key(
    chunks: Callable[[], Iterable[Tensor]], k: int, bits: int, device: torch.device, process_group: Any = None
) -> Cut:
    """The k-th largest of many keys.

    Args:
        chunks: gives this rank's keys, anew for each pass: for `FLOAT_BITS` those of `sortable_keys`, otherwise int64
            in [0, 2**bits). `NO_FLOAT`, or -1, stands for no key. It may give nothing.
        k: 1 for the largest; at most the number of keys on all ranks.
        bits: width of a key.
        device: where the histograms live (a device the process group can reduce on).
        process_group: the ranks that hold the keys, or None for this process alone.

    Returns:
        The key with its counts, the same on every rank.

    Raises:
        ValueError: if k is less than 1 or more than the number of keys.
    """
    lowest = NO_FLOAT if bits == FLOAT_BITS else 0
    prefix, larger, equal, shift = 0, 0, 0, bits
    while shift:
        width = min(DIGIT_BITS, shift)
        known, shift = shift, shift - width
        histogram = torch.zeros(1 << DIGIT_BITS, dtype=torch.int64, device=device)
        for keys in chunks():
            inside = keys.reshape(-1) if known == bits else keys[keys >> known == prefix + (lowest >> known)]
            # Slot 0 takes the -1s; only the first pass meets them.
            digits = (inside >> shift).sub_((prefix << width) + (lowest >> shift) - 1)
            histogram += torch.bincount(digits, minlength=len(histogram) + 1)[1:]
        if lowest and known == bits:
            histogram[0] = 0  # no float has this first digit
        from_top = reduce_sum(histogram.clone(), process_group).flip(0).cumsum(0).tolist()
        if not 1 <= k - larger <= from_top[-1]:
            raise ValueError(f"k is {k}, expected 1 to {larger + from_top[-1]}, the number of values")
        index = next(i for i, count in enumerate(from_top) if count >= k - larger)
        before = from_top[index - 1] if index else 0
        larger, equal = larger + before, from_top[index] - before
        digit = len(histogram) - 1 - index
        prefix = (prefix << width) | digit
        if shift and (here := int(histogram[digit])) <= CACHED_KEYS:
            chunks = _matching(chunks, shift, prefix + (lowest >> shift), here)
    return Cut(prefix + lowest, larger, equal)


def _matching(
    chunks: Callable[[], Iterable[Tensor]], shift: int, prefix: int, count: int
) -> Callable[[], Iterable[Tensor]]:
    """The `count` keys that begin with `prefix`, held in memory.

    They are copied to one tensor of their size: small ones, made between the large ones of a pass, would leave holes
    in a CPU's memory several times as large as they are.
    """
    held: Tensor | None = None
    filled = 0
    for keys in chunks():
        found = keys[keys >> shift == prefix]
        held = found.new_empty(count) if held is None else held
        held[filled : filled + len(found)] = found
        filled += len(found)
    joined = [] if held is None else [held]
    return lambda: joined


def kth_largest(values: Tensor, k: int, process_group: Any = None) -> float:
    """The k-th largest value over all ranks, exactly.

    Args:
        values: (N,) floats on this rank, compared in float32; N may be 0 and differ between ranks.
        k: 1 for the largest, over all ranks.
        process_group: the ranks, or None for this process alone.

    Returns:
        The value.

    Raises:
        ValueError: if k is not between 1 and the number of values on all ranks.
    """
    parts = values.reshape(-1).split(chunk_size(values.device))
    cut = kth_largest_key(lambda: map(sortable_keys, parts), k, FLOAT_BITS, values.device, process_group)
    return from_sortable_key(cut.key)


def _mix(state: Tensor) -> Tensor:
    """One round of the splitmix64 finaliser; int64 arithmetic wraps, shifts are made logical by masking."""
    state = (state ^ ((state >> 30) & ((1 << 34) - 1))) * -4658895280553007687
    state = (state ^ ((state >> 27) & ((1 << 37) - 1))) * -7723592293110705685
    return state ^ ((state >> 31) & ((1 << 33) - 1))


def random_keys(seed: int, step: int, rows: Tensor, tokens: Tensor) -> Tensor:
    """A counter-based random key per token: a function of its arguments alone, so the same on any split over ranks.

    Args:
        seed: the run's seed.
        step: the rollout step.
        rows: (...) int64 global row indices.
        tokens: (...) int64 token indices within a completion, padding not counted.

    Returns:
        (...) int64 in [0, 2**63), splitmix64 of the four counters (Steele et al., OOPSLA 2014).
    """
    state = torch.zeros((), dtype=torch.int64, device=rows.device)
    for counter in (torch.tensor(seed, device=rows.device), torch.tensor(step, device=rows.device), rows, tokens):
        state = _mix(state + counter.long() + -7046029254386353131)
    return state & ((1 << HASH_BITS) - 1)
