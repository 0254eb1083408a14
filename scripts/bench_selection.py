"""Time the exact token selection against `torch.quantile` and `torch.kthvalue`, in one run.

    python -m scripts.bench_selection --sizes 1048576 16777215 67108864 --repeats 5

Every method gets the same (B, T) entropies and mask and must return the (B, T) mask of the kept tokens. The methods
take turns, so that a change of the machine's load meets all of them; the ratios are what to read, not the seconds.

`memory` is the peak of what a call takes, the returned mask included, over the size of the entropies. `sent` is what
each of two gloo processes with half the rows gives to collectives; the peers work on one process only.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor

import rlvr

QUANTILE_LIMIT = 2**24 - 1
COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all", "broadcast",
               "broadcast_object_list", "gather", "gather_object", "reduce", "reduce_scatter", "scatter", "send",
               "isend")  # fmt: skip
"""What one rank can send by."""
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


def extra_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Peak memory of a call above what was in use before, its result included.

    Raises:
        OSError: on a system that does not count the peak of a process in /proc, as Linux does.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is in use
    before = _peak_resident()
    call()
    return _peak_resident() - before


def _peak_resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def sent_bytes(call: Callable[[], object]) -> int:
    """What this rank gives to all_reduce during a call.

    Raises:
        RuntimeError: if the call sends by another collective, which is not counted.
    """
    sent = 0
    plain = {name: getattr(dist, name) for name in COLLECTIVES}

    def counting(tensor: Tensor, *where: Any, **more: Any) -> Any:
        nonlocal sent
        sent += tensor.numel() * tensor.element_size()
        return plain["all_reduce"](tensor, *where, **more)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("only all_reduce is counted")

    try:
        for name in COLLECTIVES:
            setattr(dist, name, counting if name == "all_reduce" else refuse)
        call()
    finally:
        for name, function in plain.items():
            setattr(dist, name, function)
    return sent


def _rank(rank: int, folder: str, size: int, length: int, keep: float) -> None:
    """One of two ranks: counts what it sends and writes it down."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    entropies_BT, mask_BT = make_batch(math.ceil(size / 2), length, "cpu")
    sent = sent_bytes(lambda: rlvr.select_tokens(entropies_BT, mask_BT, keep, process_group=dist.group.WORLD))
    Path(folder, f"rank_{rank}").write_text(str(sent))
    dist.destroy_process_group()


def most_sent(size: int, length: int, keep: float) -> int:
    """Bytes sent by the one of two gloo processes that sends more."""
    with tempfile.TemporaryDirectory(prefix="bench_selection_") as folder:
        processes.spawn(_rank, (folder, size, length, keep), nprocs=2)
        return max(int(Path(folder, f"rank_{rank}").read_text()) for rank in range(2))


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
    used = {name: extra_bytes(lambda name=name: METHODS[name](*batch, keep), device) for name in names}  # type: ignore[misc]
    sent = {"select_tokens": f"{most_sent(size, length, keep) / 1000:.0f} kB"}
    ours_median = statistics.median(times["select_tokens"])
    print(f"\n{size:,} tokens, keep {keep}")
    heads = f"{'median s':>9} {'min':>9} {'max':>9} {'time/ours':>10} {'kept':>11} {'memory':>7} {'sent':>7}"
    print(f"  {'method':<15} {heads}")
    for name in METHODS:
        if name not in times:
            print(f"  {name:<15} refuses inputs of more than {QUANTILE_LIMIT:,} values")
            continue
        median, low, high = statistics.median(times[name]), min(times[name]), max(times[name])
        share = used[name] / (4 * batch[0].numel())
        print(
            f"  {name:<15} {median:9.4f} {low:9.4f} {high:9.4f} {median / ours_median:10.2f} {kept[name]:11,} "
            f"{share:6.2f}x {sent.get(name, '-'):>7}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[2**20, QUANTILE_LIMIT, 2**26], help="tokens to select from"
    )
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
