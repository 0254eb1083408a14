"""The benchmark of a training step: its formulas by hand, its parts, and a tiny run of all of it."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import bench_train_step
from scripts.bench_steps import cases, curves, planned, shapes, switches, table
from scripts.bench_steps.planned import Job, Setting
from scripts.bench_steps.processes import Bench
from scripts.bench_steps.profiled import kind_of, profile_lines
from scripts.bench_steps.shapes import SHAPES, Shape, forward_flops, useful_flops
from tests.source import ROOT

SMALL = Shape(hidden=4, layers=2, heads=2, kv_heads=1, head_dim=3, intermediate=5, vocabulary=10)
TINY = ["--shape", "tiny", "--median", "8", "--cut", "24", "--completions", "16", "--group", "4", "--threads", "1"]


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs jobs in this process."""
    return function(*arguments)


def fake(seconds: Callable[[Job], float]) -> Callable[..., Any]:
    """Runs no job, but says how long it took: 2 useful GFLOP, 10 kept of 40 + 10 positions, 2 MiB."""

    def start(function: Callable[..., Any], *arguments: Any) -> Any:
        if function.__name__ != "run":
            return None
        return {
            "seconds": seconds(arguments[0]), "peak_bytes": 2 * 2**20, "before_bytes": 0, "kept_tokens": 10,
            "positions": 40, "scored_positions": 10, "flops": 2e9,
        }  # fmt: skip

    return start


def bench_of(seconds: Callable[[Job], float], folder: Path) -> Bench:
    return Bench(fake(seconds), folder, lambda _: None)


def test_weights_of_the_trunk_are_counted_by_hand() -> None:
    # A layer: queries 4 * 6, keys and values 4 * 3 each, output 6 * 4: 72. MLP 3 * 4 * 5: 60. Two layers: 264.
    assert SMALL.trunk_weights == 264
    assert SMALL.weights == 264 + 40
    # Qwen3-0.6B: 0.44 billion outside the embedding of 151 936 * 1024, as published; 1.7B has 1.4.
    assert round(SHAPES["qwen3-0.6b"].trunk_weights / 1e9, 2) == 0.44
    assert round(SHAPES["qwen3-1.7b"].trunk_weights / 1e9, 1) == 1.4
    assert round(SHAPES["qwen3-8b"].weights / 1e9, 1) == 8.2


def test_flops_of_a_forward_are_counted_by_hand() -> None:
    # n = 10, p = 3. Trunk 2 * 264 * 10 = 5280; attention 2 * 2 * 2 * 3 * 100 = 2400; head 2 * 4 * 10 * 3 = 240.
    assert forward_flops(SMALL, 10, 3) == 5280 + 2400 + 240
    # Forward and backward are three forwards; the pass without gradient is one: of n = 1, p = 1 it is 528 + 24 + 80.
    assert useful_flops(SMALL, [(10, 3)], [(1, 1)]) == 3 * 7920 + 632


def test_the_trunk_has_the_weights_of_the_model() -> None:
    model = shapes.make_model(SHAPES["tiny"], "cpu", "float32", 64)
    matrices = [weight for name, weight in model.named_parameters() if "layers" in name and weight.dim() == 2]
    assert sum(weight.numel() for weight in matrices) == SHAPES["tiny"].trunk_weights


def test_lengths_are_log_normal_and_cut() -> None:
    setting = Setting(completions=4000, group=4, median=120, cut=512)
    lengths = sorted(planned.completion_lengths(setting))
    assert abs(math.log(lengths[2000] / 120)) < 0.05
    assert lengths[-1] == 512
    # A normal number is above log(512 / 120) / 0.8 = 1.81 standard deviations with probability 0.035.
    assert 0.02 < sum(length == 512 for length in lengths) / 4000 < 0.05


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 4), (0.75, 6), (1.0, 8)])
def test_a_share_of_the_groups_is_degenerate(share: float, count: int) -> None:
    rewards = torch.tensor(planned.planned_rewards(8, 8, share)).view(8, 8)
    assert int((rewards.std(dim=1) == 0).sum()) == count
    if count:
        assert rewards[rewards.std(dim=1) == 0].mean() == 0.5, "as many solved as unsolvable"


def test_rollouts_depend_on_rewards_in_nothing_else() -> None:
    setting = Setting(shape=SHAPES["tiny"], median=12, cut=24)
    mixed, half = planned.plan_rollouts(setting, 0.0), planned.plan_rollouts(setting, 0.5)
    assert (mixed.prompt_ids, mixed.completion_ids) == (half.prompt_ids, half.completion_ids)
    assert mixed.rewards != half.rewards
    for ids in mixed.completion_ids:
        assert (ids[-1] == planned.EOS) == (len(ids) < 24)
        assert planned.EOS not in ids[:-1]
    assert all(20 <= len(ids) <= 60 for ids in mixed.prompt_ids)
    assert mixed.prompt_ids[0] == mixed.prompt_ids[7] != mixed.prompt_ids[8]


def test_numbers_of_a_case_are_computed_by_hand() -> None:
    def run(seconds: float, mebibytes: int) -> dict[str, Any]:
        counts = {"kept_tokens": 5, "positions": 40, "scored_positions": 10, "flops": 3e9}
        return {"seconds": seconds, "peak_bytes": mebibytes * 2**20, **counts}

    theirs, own = [run(12.0, 100), run(8.0, 90), run(10.0, 80)], [run(2.0, 9), run(1.0, 18), run(4.0, 27)]
    jobs = Job("trl", Setting(), rows=16), Job("ours", Setting())
    line = table.compare("a", (jobs[0], theirs), (jobs[1], own), peak=6e9)
    assert (line["ratio"], line["ratio_min"], line["ratio_max"]) == (5.0, 2.5, 8.0)
    assert line["peak_ratio"] == 18 / 90
    assert (line["trl"]["rows"], line["ours"]["rows"]) == (16, 8)
    ours = line["ours"]
    # 5 of 50 positions; 3 GFLOP in a median of 2 s are 1.5 GFLOP/s, a quarter of 6.
    assert (ours["useful_share"], ours["gflop_per_s"], ours["mfu"]) == (0.1, 1.5, 0.25)
    cells = table.case_cells(line)
    assert len(cells) == len(table.CASE_HEADER)
    assert cells[:4] == ["a", "10.00 (8.00-12.00)", "2.00 (1.00-4.00)", "5.0 (2.5-8.0)"]
    assert cells[-2:] == ["5.0%", "25.0%"]


def test_a_run_that_failed_is_named_in_the_table() -> None:
    failed = [{"error": "no | room"}]
    line = table.compare("a", (Job("trl", Setting()), failed), (Job("ours", Setting()), failed), None)
    cells = table.case_cells(line)
    assert cells[:4] == ["a", "FAILED: no / room", "FAILED: no / room", "-"]
    assert len(cells) == len(table.CASE_HEADER)


def test_rounds_alternate_and_rotate(tmp_path: Path) -> None:
    order: list[str] = []
    bench = Bench(fake(lambda _: 1.0), tmp_path, order.append)
    jobs = [Job("trl", Setting()), Job("ours", Setting()), Job("ours", Setting(), degenerate=0.5)]
    results = bench.rounds([*jobs, jobs[0]], 3)
    assert {len(runs) for runs in results.values()} == {3}
    who = [line.split(",")[0] for line in order]
    assert who == ["trl", "ours", "ours", "ours", "ours", "trl", "ours", "trl", "ours"]


def test_the_fastest_micro_batch_is_taken_and_named(tmp_path: Path) -> None:
    bench = bench_of(lambda job: abs(job.rows - 8) + 1.0, tmp_path)
    best, lines = cases.fastest(bench, Job("trl", Setting()), [4, 8, 16])
    assert best.rows == 8
    assert [(line["rows"], line["fastest"], line["median_s"]) for line in lines] == [
        (4, False, 5.0), (8, True, 1.0), (16, False, 9.0)
    ]  # fmt: skip


def test_curves_have_every_point_twice_and_their_limit(tmp_path: Path) -> None:
    bench = bench_of(lambda job: job.setting.median / 60.0, tmp_path)
    lines = curves.curves(bench, Job("ours", Setting()), 1, peak=4e9)
    assert len(lines) == 2 * (3 + 5 + 4 + 3)
    lengths = [line for line in lines if line["curve"] == "median length" and line["entropies"] == "pass"]
    assert [(line["value"], line["median_s"]) for line in lengths] == [(60, 1.0), (120, 2.0), (240, 4.0)]
    assert {line["limit_s"] for line in lines} == {0.5}, "2 GFLOP at 4 GFLOP/s"
    assert curves.curve_cells(lengths[1])[-2:] == ["0.50", "4.0"]
    points = curves.points(Job("ours", Setting()))
    sizes = [job.setting.shape.vocabulary for what, _, job in points if what == "vocabulary"]
    assert sizes == [4096, 32_768, 131_072]


def test_attribution_compares_with_nothing_switched_off(tmp_path: Path) -> None:
    bench = bench_of(lambda job: (1.0 + len(job.switched_off)) * (1 - job.degenerate), tmp_path)
    lines = curves.attribution(bench, Job("ours", Setting()), Job("trl", Setting()), 1)
    times = {(line["groups"], line["variant"]): line["times"] for line in lines}
    assert times["informative", "ours, without padding, head"] == 3.0
    assert times["half degenerate", "ours, without rows"] == 2.0
    assert times["half degenerate", "ours, without padding, head, rows"] == 6.0
    assert all(len(curves.attribution_cells(line)) == len(curves.ATTRIBUTION_HEADER) for line in lines)


def test_a_tiny_run_prints_its_table_and_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_train_step.main([*TINY, "--runs", "1", "--trl-rows", "4,8", "--ours-rows", "4"], here) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith("trl, per_device_train_batch_size")]) == 2
    assert len([line for line in printed if line.startswith("| ")]) == 2 + len(cases.CASES)
    lines = {line["case"]: line for line in map(json.loads, printed[-len(cases.CASES) :])}
    assert lines.keys() == cases.CASES.keys()
    rollouts = planned.plan_rollouts(Setting(SHAPES["tiny"], 16, 4, 8, cut=24), 0.0)
    width = max(map(len, rollouts.prompt_ids)) + max(map(len, rollouts.completion_ids))
    informative, recorded, all_tokens = (lines[f"{name}"] for name in ("a, informative", "b, informative", "c, keep 1"))
    for line in lines.values():
        assert line["trl"]["positions"] == 16 * width, "TRL pads every row to the longest"
        assert len(line["ours"]["seconds"]) == len(line["trl"]["seconds"]) == 1
        assert line["ratio"] > 0
        assert line["setting"]["completions"] == 16
        assert line["versions"].keys() == {"device", "torch", "transformers", "trl", "commit"}
    kept = math.ceil(0.2 * rollouts.tokens), rollouts.tokens
    assert abs(informative["ours"]["kept_tokens"] - kept[0]) <= 1
    assert all_tokens["trl"]["kept_tokens"] == all_tokens["ours"]["kept_tokens"] == kept[1]
    assert recorded["ours"]["kept_tokens"] == informative["ours"]["kept_tokens"], "the same selection"
    assert recorded["ours"]["positions"] == informative["ours"]["positions"]
    assert recorded["ours"]["scored_positions"] == 0 < informative["ours"]["scored_positions"]
    half = lines["b, half degenerate"]
    assert half["ours"]["positions"] < recorded["ours"]["positions"]
    assert half["trl"]["kept_tokens"] < informative["trl"]["kept_tokens"]


def test_a_run_that_raises_fails_the_bench_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def start(function: Callable[..., Any], *arguments: Any) -> Any:
        if function.__name__ == "run" and arguments[0].trainer == "ours":
            raise RuntimeError("no room")
        return fake(lambda _: 1.0)(function, *arguments) or {}

    options = ["--runs", "1", "--trl-rows", "4", "--cases", "c", "--peak-tflops", "1"]
    assert bench_train_step.main([*TINY, *options], start) == 1
    assert "FAILED: RuntimeError: no room" in capsys.readouterr().out


@pytest.mark.parametrize("switch", [switches.PADDING, switches.HEAD])
def test_what_is_switched_off_costs_more_and_changes_no_selection(switch: str) -> None:
    from scripts.bench_steps.step import run

    setting = Setting(SHAPES["tiny"], 16, 4, 8, cut=24, threads=1)
    rollouts = planned.plan_rollouts(setting, 0.0)
    width = max(map(len, rollouts.prompt_ids)) + max(map(len, rollouts.completion_ids))
    plain, off = run(Job("ours", setting, 4)), run(Job("ours", setting, 4, switched_off=(switch,)))
    assert off["kept_tokens"] == plain["kept_tokens"]
    assert off["flops"] == pytest.approx(plain["flops"], rel=0.02)
    if switch == switches.PADDING:
        assert off["scored_positions"] == 16 * width > plain["scored_positions"]
        assert off["positions"] > plain["positions"]


def test_rows_padded_to_the_longest_have_the_same_scores() -> None:
    from trl.trainer.utils import add_fused_lm_head

    from rlvr.trainer.forward import Tokens, compacted_head, token_logps

    model = shapes.make_model(SHAPES["tiny"], "cpu", "float32", 64)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prompts, completions = torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[3, 4], [5, 0]])
    tokens = Tokens(prompts, (prompts > 0).long(), completions, (completions > 0).long())
    projected = torch.tensor([[False, True], [True, False]])
    longest = planned.Planned([[2] * 7], [[2] * 5], [])
    with torch.no_grad(), compacted_head(64, True):
        padded = switches._padded_to(longest)(model, tokens, projected)
        expected = token_logps(model, tokens, projected)
    for ours, plain in zip(padded, expected, strict=True):
        torch.testing.assert_close(ours, plain)
    assert expected[0].ne(0).tolist() == projected.tolist()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_for_one_says_what_it_needs() -> None:
    done = subprocess.run(["bash", "scripts/bench_gpu.sh", "qwen3-8b"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "torch sees no GPU; qwen3-8b in bfloat16 needs one with 66 GB" in done.stderr


def test_operations_have_a_kind_and_a_share() -> None:
    assert kind_of("aten::addmm") == kind_of("aten::mm") == "matrix products"
    assert kind_of("aten::add_") == "multiplications and additions of activations"
    assert kind_of("aten::_scaled_dot_product_flash_attention_for_cpu_backward") == "attention"
    assert kind_of("Optimizer.step#AdamW.step") == "everything else"
    lines = profile_lines("b", {"attention": 1.0, "optimizer": 3.0})
    assert [(line["kind"], line["s"], line["share"]) for line in lines] == [
        ("optimizer", 3.0, 0.75), ("attention", 1.0, 0.25)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_profile_says_where_a_step_goes() -> None:
    command = [sys.executable, "-m", "scripts.bench_train_step", *TINY, "--profile", "--ours-rows", "4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    shares = {(line["case"], line["kind"]): line["share"] for line in lines}
    for case in ("a, informative", "b, informative"):
        assert sum(share for (name, _), share in shares.items() if name == case) == pytest.approx(1, abs=0.01)
        assert shares[case, "matrix products"] > 0
        assert shares[case, "attention"] > 0


@pytest.mark.slow
def test_every_run_has_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "scripts.bench_train_step", *TINY, "--runs", "1", "--trl-rows", "4"]
    done = subprocess.run([*command, "--ours-rows", "4"], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["case"] for line in lines] == list(cases.CASES)
    assert all(line["ours"]["peak_mib"] > 0 for line in lines)
