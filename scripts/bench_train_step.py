"""One training step of TRL's `GRPOTrainer` and of ours on the same weights and rollouts: time, memory, useful work.

    python -m scripts.bench_train_step                 # the comparison, about half an hour on two cores
    python -m scripts.bench_train_step --curves        # what a step of ours costs against lengths, kept share, ...
    python -m scripts.bench_train_step --attribute     # what padding, rows and head are worth
    python -m scripts.bench_train_step --profile       # which operations a step of ours consists of
    python -m scripts.bench_train_step --shape tiny --median 12 --cut 40 --runs 1 --trl-rows 8    # does it run

A step is everything from finished rollouts to updated weights: rewards, scoring, every gradient slice, the optimizer.
Rollouts are injected in the place of generation. Both trainers see all rows in one optimizer step. TRL's fastest
`per_device_train_batch_size` is found first. Every run is a process of its own; the order of the runs rotates from
round to round. Peak memory is above what was in use before the step, gradients and the optimizer's state included.
Useful work and its FLOPs: `useful_flops` in `scripts/bench_steps/shapes.py`. On a CPU, MFU is the share of what a large
fp32 product reaches there.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scripts.bench_steps import cases, curves
from scripts.bench_steps.planned import Job, Setting
from scripts.bench_steps.processes import Bench, Runner, fresh_process, machine, peak_flops
from scripts.bench_steps.profiled import PROFILE_HEADER, profile, profile_cells, profile_lines
from scripts.bench_steps.shapes import SHAPES
from scripts.bench_steps.table import CASE_HEADER, case_cells, markdown, print_lines, spread

NO_GPU = 2
ROW_RUNS = 3
"""Runs of a point of a curve, or of a variant, unless `--runs` says otherwise."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Setting()
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--vocabulary", type=int, help="instead of the shape's own")
    for name in ("completions", "group", "median", "cut", "threads", "warmup_steps", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    parser.add_argument("--sigma", type=float, default=default.sigma, help="of the logarithm of the lengths")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default.device)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations, in both trainers")
    parser.add_argument("--optim", default=default.optim)
    parser.add_argument("--runs", type=int, help="rounds: 5 of the comparison, 3 of curves and attribution")
    parser.add_argument("--trl-rows", type=_numbers, default=[4, 8, 16, 64], help="TRL's micro-batches, as 4,8")
    parser.add_argument("--ours-rows", type=_numbers, default=[8], help="ours; of several, the fastest is taken")
    parser.add_argument("--cases", default="", help="cases whose name begins so: a, b or c")
    parser.add_argument("--peak-tflops", type=float, help="of the device, where it is unknown")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--attribute", action="store_true")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def setting_of(args: argparse.Namespace) -> Setting:
    """The setting that the options describe."""
    shape = SHAPES[args.shape]
    names = ("completions", "group", "median", "cut", "threads", "warmup_steps", "seed", "sigma", "device", "optim")
    return Setting(
        shape=replace(shape, vocabulary=args.vocabulary or shape.vocabulary),
        dtype={"fp32": "float32", "bf16": "bfloat16"}[args.dtype],
        checkpointing=args.checkpointing,
        **{name: getattr(args, name) for name in names},
    )


def main(arguments: Sequence[str] | None = None, start: Runner | None = None) -> int:
    """Measure and print.

    Args:
        arguments: of the command line.
        start: where jobs run; a fresh process each by default.

    Returns:
        0; 1 if a run failed; 2 without the GPU that was asked for.
    """
    args = parse(arguments)
    start, setting = start or fresh_process(args.device), setting_of(args)
    if args.device == "cuda" and not start(_has_gpu):
        print(_needs(args.shape, setting), file=sys.stderr)
        return NO_GPU
    load = round(os.getloadavg()[0], 2)
    peak = args.peak_tflops * 1e12 if args.peak_tflops else start(peak_flops, args.device, args.threads)
    common = {
        "setting": asdict(setting), "versions": start(machine, args.device), "load": load,
        "peak_gflop_per_s": peak and round(peak / 1e9, 1),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(start, Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
        lines = _measure(bench, args, setting, peak)
    print_lines(lines, common)
    return int(any("error" in part for line in lines for part in (line, line.get("trl", {}), line.get("ours", {}))))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _needs(name: str, setting: Setting) -> str:
    """What a GPU has to have: weights, gradients and AdamW's two moments, all of one type, before any activation."""
    gigabytes = 4 * setting.shape.weights * (2 if setting.dtype == "bfloat16" else 4) / 1e9
    return (
        f"bench_train_step: --device cuda, but torch sees no GPU; {name} in {setting.dtype} needs one with "
        f"{gigabytes:.0f} GB for weights, gradients and AdamW, and room for activations: run it there, or --device cpu"
    )


def _measure(bench: Bench, args: argparse.Namespace, setting: Setting, peak: float | None) -> list[dict[str, Any]]:
    """Run what the options ask for, print its table, and return its lines."""
    if args.curves:
        job, _ = cases.fastest(bench, Job("ours", setting), args.ours_rows)
        lines = curves.curves(bench, job, args.runs or ROW_RUNS, peak)
        print(markdown(curves.CURVE_HEADER, [curves.curve_cells(line) for line in lines]))
        return lines
    if args.attribute:
        job, _ = cases.fastest(bench, Job("ours", setting), args.ours_rows)
        trl, _ = cases.fastest(bench, Job("trl", setting), args.trl_rows)
        lines = curves.attribution(bench, job, trl, args.runs or ROW_RUNS)
        print(markdown(curves.ATTRIBUTION_HEADER, [curves.attribution_cells(line) for line in lines]))
        return lines
    if args.profile:
        job = Job("ours", setting, args.ours_rows[0])
        both = {"a, informative": job, "b, informative": bench.recorded(job)}
        lines = [line for name, each in both.items() for line in profile_lines(name, bench.start(profile, each))]
        print(markdown(PROFILE_HEADER, [profile_cells(line) for line in lines]))
        return lines
    names = [name for name in cases.CASES if name.startswith(args.cases)]
    sweep, lines = cases.all_cases(bench, setting, names, args.runs or 5, args.trl_rows, args.ours_rows, peak)
    for line in sweep:
        fastest = ", the fastest" if line["fastest"] else ""
        print(f"{line['sweep']}, per_device_train_batch_size {line['rows']}: {spread(line)} s{fastest}")
    print(markdown(CASE_HEADER, [case_cells(line) for line in lines]))
    return sweep + lines


if __name__ == "__main__":
    sys.exit(main())
