"""Time the exact token selection against `torch.quantile` and `torch.kthvalue`, in one run.

    python -m scripts.bench_selection --sizes 1048576 16777215 --repeats 5

Every method gets the same (B, T) entropies and mask and must return the (B, T) mask of the kept tokens. The methods
take turns, so that a change of the machine's load meets all of them; the ratios are what to read, not the seconds.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import rlvr

QUANTILE_LIMIT = 2**24 - 1
Method = Callable[[Tensor, Tensor, float], Tensor]


def ours(entropies_BT: Tensor, mask_BT: Tensor, keep: float) -> Tensor:
    """Exact count, one pooled threshold, ties by position."""
    return rlvr.select_tokens(entropies_BT, mask_BT, keep=keep, rule="top_entropy", scope="rollout").mask


def quantile(entropies_BT: Tensor, mask_BT: Tensor, keep: float) -> Tensor:
    """An interpolated threshold; refuses large inputs."""
    return mask_BT & (entropies_BT >= torch.quantile(entropies_BT[mask_BT], 1 - keep))


def kthvalue(entropies_BT: Tensor, mask_BT: Tensor, keep: float) -> Tensor:
    """An exact threshold on one process; takes every tie."""
    values_N = entropies_BT[mask_BT]
    threshold = values_N.kthvalue(values_N.numel() - math.ceil(keep * values_N.numel()) + 1).values
    return mask_BT & (entropies_BT >= threshold)


METHODS: dict[str, Method] = {"select_tokens": ours, "torch.quantile": quantile, "torch.kthvalue": kthvalue}


def make_batch(size: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    """(B, T) entropies in nats, most of them near 0 as in a language model, and a mask with `size` tokens."""
    rows = math.ceil(size / length)
    generator = torch.Generator().manual_seed(0)
    entropies_BT = torch.rand(rows, length, generator=generator).pow(8) * 4
    mask_BT = torch.arange(rows * length).view(rows, length) < size
    return entropies_BT.to(device), mask_BT.to(device)


def seconds(method: Method, entropies_BT: Tensor, mask_BT: Tensor, keep: float) -> tuple[float, int]:
    """Wall time of one call, and how many tokens it kept."""
    synchronize = torch.cuda.synchronize if entropies_BT.is_cuda else (lambda: None)
    synchronize()
    start = time.perf_counter()
    kept_BT = method(entropies_BT, mask_BT, keep)
    synchronize()
    return time.perf_counter() - start, int(kept_BT.sum())


def compare(size: int, keep: float, repeats: int, length: int, device: str) -> None:
    """Print a row per method for one size; the first, untimed round warms up."""
    batch = make_batch(size, length, device)
    names = [name for name in METHODS if name != "torch.quantile" or size <= QUANTILE_LIMIT]
    times: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, int] = {}
    for round_ in range(repeats + 1):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            elapsed, kept[name] = seconds(METHODS[name], *batch, keep)
            if round_ > 0:
                times[name].append(elapsed)
    ours_median = statistics.median(times["select_tokens"])
    print(f"\n{size:,} tokens, keep {keep}")
    print(f"  {'method':<15} {'median s':>9} {'min':>9} {'max':>9} {'time/ours':>10} {'kept':>11}")
    for name in METHODS:
        if name not in times:
            print(f"  {name:<15} refuses inputs of more than {QUANTILE_LIMIT:,} values")
            continue
        median, low, high = statistics.median(times[name]), min(times[name]), max(times[name])
        print(f"  {name:<15} {median:9.4f} {low:9.4f} {high:9.4f} {median / ours_median:10.2f} {kept[name]:11,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2**20, QUANTILE_LIMIT], help="tokens to select from")
    parser.add_argument("--keep", type=float, default=0.2, help="share of tokens to keep")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds; every method runs once a round")
    parser.add_argument("--length", type=int, default=4096, help="T, tokens in a row")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if min(args.repeats, args.length, *args.sizes) < 1:
        parser.error("--sizes, --repeats and --length must be at least 1")
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} CPU threads, {args.repeats} rounds")
    for size in args.sizes:
        compare(size, args.keep, args.repeats, args.length, args.device)


if __name__ == "__main__":
    main()
