"""Time and memory of KTAE's token values against a loop over tokens, in one JSON line.

    OMP_NUM_THREADS=2 python -m scripts.bench_ktae --groups 64 --rollouts 16 --length 1024 --vocabulary 151936

The peer goes through the groups and the distinct tokens of each in Python, with tables as wide as the vocabulary. It is
slow, so that it gets a few groups only; its time for all is scaled up. Each runs in a process of its own, for the peak
of its memory. `zipf` has the few frequent tokens of language; in `uniform` few tokens come twice: the worst case.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import time

import torch
from torch import Tensor

from rlvr.maths.fisher import fisher_p_values
from rlvr.maths.ktae import key_token_values


def make_batch(kind: str, rows: int, length: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T) ids and mask, and (B,) verdicts."""
    generator = torch.Generator().manual_seed(0)
    if kind == "uniform":
        ids_BT = torch.randint(0, vocabulary, (rows, length), generator=generator)
    else:  # the density of the logarithm is flat: a token's frequency falls as 1 / rank
        ids_BT = (torch.rand(rows, length, generator=generator) * math.log(vocabulary)).exp().long() - 1
    verdicts_B = torch.randint(0, 2, (rows,), generator=generator).float()
    return ids_BT.clamp(0, vocabulary - 1), torch.ones(rows, length, dtype=torch.bool), verdicts_B


def loop_over_tokens(ids_BT: Tensor, mask_BT: Tensor, verdicts_B: Tensor, size: int, vocabulary: int) -> Tensor:
    """The peer, by the same formula."""
    values_BT = torch.zeros(ids_BT.shape)
    for start in range(0, len(ids_BT), size):
        ids, mask, right = (part[start : start + size] for part in (ids_BT, mask_BT, verdicts_B > 0))
        long_T, long_F = int(mask[right].sum()), int(mask[~right].sum())
        n_T, n_F = int(right.sum()), int((~right).sum())
        if not n_T or not n_F:
            continue
        p_values = fisher_p_values(n_T, n_F)
        table = torch.zeros(vocabulary, dtype=torch.float64)
        for token in ids[mask].unique().tolist():
            here = (ids == token) & mask
            has, count = here.any(dim=1), here.sum(dim=1)
            a, b = int(has[right].sum()), int(has[~right].sum())
            often = [
                _frequency(int(count[side].sum()), length, (long_T + long_F) / 2)
                for side, length in ((right, long_T), (~right, long_F))
            ]
            table[token] = _value(p_values[a][b], a, b, n_T, n_F, *often)
        values_BT[start : start + size] = table.float()[ids] * mask
    return values_BT


def _frequency(count: int, length: int, mean: float) -> float:
    share = count / length
    return 3 * share / (share + 2 * (0.5 + 0.5 * length / mean))


def _bits(*counts: int) -> float:
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts if n)


def _value(p: float, a: int, b: int, n_T: int, n_F: int, often_T: float, often_F: float) -> float:
    n, c, d = n_T + n_F, n_T - a, n_F - b
    gain = _bits(n_T, n_F) - (a + b) / n * _bits(a, b) - (c + d) / n * _bits(c, d)
    h = math.asin(math.sqrt(a / n_T)) - math.asin(math.sqrt(b / n_F))
    direction = h + often_T / (often_F + 1e-5) - often_F / (often_T + 1e-5)
    return math.tanh(((math.exp(-2 * p) if p != 1 else 0.0) + gain) * direction / 4)


def measure(method: str, kind: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each repeat, extra peak memory in MiB, and the sum of the absolute values of the first groups."""
    groups = args.groups if method == "ours" else min(args.groups, args.peer_groups)
    rows = args.groups * args.rollouts
    ids, mask, verdicts = (
        part[: groups * args.rollouts] for part in make_batch(kind, rows, args.length, args.vocabulary)
    )
    key_token_values(ids[: args.rollouts, :8], mask[: args.rollouts, :8], verdicts[: args.rollouts], args.rollouts)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(args.repeats if method == "ours" else 1):
        start = time.perf_counter()
        if method == "ours":
            values = key_token_values(ids, mask, verdicts, args.rollouts)
        else:
            values = loop_over_tokens(ids, mask, verdicts, args.rollouts, args.vocabulary)
        seconds.append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    shared = values[: min(args.groups, args.peer_groups) * args.rollouts].double().abs().sum()
    scale = args.groups / groups
    return {
        "median_s": round(statistics.median(seconds) * scale, 4), "min_s": round(min(seconds) * scale, 4),
        "max_s": round(max(seconds) * scale, 4), "measured_groups": groups, "extra_peak_mib": round(peak, 1),
        "checksum": round(float(shared), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("groups", 64), ("rollouts", 16), ("length", 1024), ("vocabulary", 151_936)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=9, help="timed calls")
    parser.add_argument("--peer-groups", type=int, default=2, help="groups that the peer gets")
    args = parser.parse_args()
    if min(vars(args).values()) < 1:
        parser.error("every number must be at least 1")
    load = round(os.getloadavg()[0], 2)
    result: dict[str, object] = {**vars(args), "threads": torch.get_num_threads(), "load": load}
    context = multiprocessing.get_context("spawn")
    for kind in ("zipf", "uniform"):
        for method in ("ours", "loop"):
            with context.Pool(1) as pool:
                result[f"{kind}_{method}"] = pool.apply(measure, (method, kind, args))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
