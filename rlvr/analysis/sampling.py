"""Draws answers to benchmarks with the entropies of their tokens, and keeps them as recorded rollouts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr.config.evaluation import EvaluationConfig, benchmarks_folder, compose_evaluation
from rlvr.errors import UserError
from rlvr.evaluation.benchmarks import Loaded, load_benchmark
from rlvr.evaluation.checkpoints import find_checkpoints, is_run
from rlvr.evaluation.grading import LIMITS
from rlvr.evaluation.ledger import gold_text
from rlvr.evaluation.opening import engine_of, open_backend
from rlvr.evaluation.protocol import Protocol, protocol_of
from rlvr.evaluation.requests import Key, Request, sample_seed
from rlvr.rewards.grade import grade_many
from rlvr.rollouts.record import record_path, write_record
from rlvr.rollouts.stream import prompt_text
from rlvr.sampling.batched import BatchedSampler, Row


def draw_record(overrides: Sequence[str], out: Path) -> Path:
    """Sample, grade and keep.

    The same seeds as those of `rlvr evaluate` give the same answers. The record has the columns of a training run and
    `benchmark`; `step` is 0, nothing is `kept`, advantages are 0, and `group` counts the problems.

    Args:
        overrides: settings of `rlvr evaluate`, `key=value`.
        out: folder of the record; made if it is not there.

    Returns:
        The file.

    Raises:
        UserError: for settings that do not fit, a model that cannot be loaded, or a record that is there already.
    """
    config = compose_evaluation(overrides)
    checkpoint = _checkpoint(config)
    path = record_path(out, 0)
    if path.exists():
        raise UserError(f"{path} exists; choose another --out, so that nothing is overwritten")
    benchmarks = [load_benchmark(name, benchmarks_folder(config)) for name in dict.fromkeys(config.benchmarks)]
    engine = engine_of(config, checkpoint)
    asked = [(benchmark, protocol_of(config, benchmark, engine)) for benchmark in benchmarks]
    backend: Any = open_backend(config, checkpoint)
    sampler = BatchedSampler(backend.model, backend.tokenizer, config.batch_size, config.decoding, record=True)
    rows: list[dict[str, Any]] = []
    for benchmark, protocol in asked:
        rows += _draw(sampler, benchmark, protocol, config, first=rows[-1]["group"] + 1 if rows else 0)
    for index, row in enumerate(rows):
        row["row"] = index
    write_record(rows, out, 0)
    return _with_benchmark(path, [row["benchmark"] for row in rows])


def _checkpoint(config: EvaluationConfig) -> Any:
    if config.backend != "transformers" or config.processes > 1 or config.watch:
        raise UserError("entropies are recorded by backend=transformers in one process, without watch; leave these out")
    if config.temperature == 0:
        raise UserError("temperature=0 draws without chance, so its tokens have no entropy; expected more than 0")
    found = find_checkpoints(config.model)
    if len(config.model) > 1 or (len(found) > 1 and not is_run(Path(config.model[0]).expanduser())):
        raise UserError(f"model={','.join(config.model)} stands for several models; expected one")
    return found[-1]


def _draw(
    sampler: BatchedSampler, benchmark: Loaded, protocol: Protocol, config: EvaluationConfig, first: int
) -> list[dict[str, Any]]:
    """The rows of one benchmark, problem after problem."""
    from rlvr.evaluation.encoding import encode_requests

    problems = benchmark.problems[: config.limit]
    keys = [Key(benchmark.name, problem.problem_id, sample) for problem in problems for sample in range(config.samples)]
    prompts = [prompt for problem in problems for prompt in [protocol.render(problem.question)] * config.samples]
    requests = [Request(key, prompt, sample_seed(config.seed, key)) for key, prompt in zip(keys, prompts, strict=True)]
    drawn = []
    for index, (request, ids) in enumerate(zip(requests, encode_requests(sampler.tokenizer, requests), strict=True)):
        room = sampler.room(ids, protocol.sampling.max_tokens)
        if room < 1:
            raise UserError(f"the prompt of {request.key.problem_id} leaves the model no room to answer; leave it out")
        drawn.append(Row(index, list(ids), request.seed, room))
    for _ in sampler.run(drawn, protocol.sampling):
        pass
    texts = sampler.tokenizer.batch_decode([row.drawn for row in drawn], skip_special_tokens=True)
    golds = [problem.gold for problem in problems for _ in range(config.samples)]
    cut = [sampler.reason(row) == "length" for row in drawn]
    verdicts = grade_many(texts, golds, cut, policy=protocol.grading, limits=LIMITS)
    return [
        {
            "step": 0, "rollout_step": 0, "group": first + index // config.samples,
            "prompt_id": requests[index].key.problem_id, "prompt": prompt_text(requests[index].prompt),
            "completion": texts[index], "gold": gold_text(golds[index]), "reward": float(verdicts[index].correct),
            "rewards": {"accuracy": float(verdicts[index].correct)}, "correct": verdicts[index].correct,
            "status": verdicts[index].status, "truncated": cut[index], "token_ids": row.drawn,
            "entropies": row.entropies, "logprobs": row.logps, "kept": [False] * len(row.drawn),
            "advantages": [0.0] * len(row.drawn), "benchmark": benchmark.name,
        }
        for index, row in enumerate(drawn)
    ]  # fmt: skip


def _with_benchmark(path: Path, names: Sequence[str]) -> Path:
    """The record with one more column, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path).append_column("benchmark", pa.array(names, pa.string()))
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)
    return path
