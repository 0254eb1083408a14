"""Where the seconds of one step go, by kind of operation: what stands between a step and the limit of its FLOPs."""

from typing import Any

from scripts.bench_steps.planned import Job

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::matmul", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product",),
    "optimizer": ("aten::_fused_adam", "aten::_foreach", "aten::lerp_", "aten::addcmul_", "aten::addcdiv_"),
    "exponentials and sums of the head": (
        "aten::exp", "aten::logsumexp", "aten::log", "aten::sum", "aten::max", "aten::amax",
    ),
    "gathering, copies, concatenation": (
        "aten::copy_", "aten::cat", "aten::index", "aten::gather", "aten::scatter", "aten::embedding", "aten::clone",
        "aten::_to_copy", "aten::fill_", "aten::zero_",
    ),
    "multiplications and additions of activations": (
        "aten::mul", "aten::add", "aten::silu", "aten::rsqrt", "aten::pow", "aten::mean", "aten::neg", "aten::div",
        "aten::sub",
    ),
}  # fmt: skip
"""Kind -> how the names of its operations begin; what begins like none is `everything else`."""

OTHER = "everything else"
PROFILE_HEADER = ("case", "kind", "s", "share")


def profile(job: Job) -> dict[str, float]:
    """Seconds of one step by kind, by torch's profiler; it makes a step a little slower itself.

    Each operation is counted without those inside it, on the thread that started it.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    from scripts.bench_steps import step

    seen: Any = None

    class Profiled(step.Watch):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            nonlocal seen
            super().on_step_begin(*args, **kwargs)
            seen = watched(activities=[ProfilerActivity.CPU])
            seen.start()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.stop()
            super().on_step_end(*args, **kwargs)

    step.Watch = Profiled  # type: ignore[misc]  in a process of its own
    step.run(job)
    seconds = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in seen.key_averages():
        seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    return seconds


def kind_of(operation: str) -> str:
    """The kind with the longest beginning of an operation's name."""
    found = [(len(start), kind) for kind, starts in KINDS.items() for start in starts if operation.startswith(start)]
    return max(found)[1] if found else OTHER


def profile_lines(name: str, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """A line for every kind, the dearest first."""
    whole = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda each: -each[1])
    return [
        {"case": name, "kind": kind, "s": round(spent, 3), "share": round(spent / whole, 4)} for kind, spent in ordered
    ]


def profile_cells(line: dict[str, Any]) -> list[str]:
    """A line as cells of the table."""
    return [line["case"], line["kind"], f"{line['s']:.2f}", f"{line['share']:.0%}"]
