"""What is settled before a run writes a file: its sizes, its model, and whether there is room for it."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

from rlvr.assets import base_policy_path
from rlvr.config.algebra import BatchSizes, divisors
from rlvr.config.schema import ModelSection, RunConfig
from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.launch.variables import whole
from rlvr.launch.world import check_launcher, is_rank
from rlvr.model_shape import ADAPTER_BYTES, BYTES, read_shape, weight_files
from rlvr.run_folder import RunFolder, nearest_existing

COPIES = 3
"""What a checkpoint holds of each trained weight: itself and two moments of AdamW."""

SPARE_BYTES = 64 << 20
"""For everything else in a run folder."""


def check_launch(config: RunConfig) -> None:
    """Refuse a run on another number of processes than the section `launch` asks for, or on another engine.

    Raises:
        UserError: naming what was asked for and what is there.
    """
    check_launcher(os.environ, config.launch, config.deepspeed)
    if (config.launch.ranks or 1) > 1 and not is_rank(os.environ):
        raise UserError(
            f"launch asks for {config.launch.ranks} processes, but this is one that nobody has started others beside; "
            "start the run with `rlvr train`, or this script with torchrun"
        )


def planned_ranks(config: RunConfig) -> int:
    """Processes that a run would have: those of the launcher that started this one, else those asked for."""
    check_launcher(os.environ, config.launch, config.deepspeed)
    return whole(os.environ, "WORLD_SIZE", 1) if is_rank(os.environ) else config.launch.ranks or 1


ROWS_AT_MOST = 64
"""Rows in a slice where `optimizer.micro_batch_rows` is not set: much for a long model, little for a short one."""


def run_sizes(config: RunConfig, ranks: int = 1) -> BatchSizes:
    """The batch algebra of a configuration on so many processes.

    Raises:
        UserError: if the sizes do not divide.
    """
    rollouts, optimizer = config.rollouts, config.optimizer
    micro_batch_rows = optimizer.micro_batch_rows
    if micro_batch_rows is None:
        rows = rollouts.prompts * rollouts.num_generations // max(1, optimizer.updates_per_rollout * ranks)
        micro_batch_rows = max((size for size in divisors(rows) if size <= ROWS_AT_MOST), default=1)
    return BatchSizes(
        rollouts.prompts, rollouts.num_generations, optimizer.updates_per_rollout, optimizer.num_iterations,
        micro_batch_rows, ranks, optimizer.window,
    )  # fmt: skip


def model_path(config: RunConfig) -> str:
    """The folder or hub id of the policy to start from.

    Raises:
        UserError: if it looks like a folder and is none.
    """
    given = config.model.path
    if given == "builtin":
        return str(base_policy_path())
    looks_local = given.startswith((".", "/", "~")) or given.count("/") > 1
    if looks_local and not Path(given).expanduser().is_dir():
        raise UserError(f"model.path={given} is not a folder; expected one that from_pretrained loads, or a hub id")
    folder = Path(given).expanduser()
    if not folder.is_dir():
        return given
    newest = RunFolder(folder).newest_checkpoint()
    if newest is not None and not (folder / "config.json").exists():
        raise UserError(f"model.path={given} is a run folder; its newest trained model is model.path={newest}")
    return str(folder)


def check_tracking(config: RunConfig) -> None:
    """Refuse to report to Weights & Biases without an account, instead of failing after the model was loaded.

    Raises:
        UserError: if there is no key and no offline mode.
    """
    if "wandb" not in config.logging.report_to or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    known = "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text(errors="replace"))
    if not known:
        raise UserError(
            "logging.report_to has wandb, but nobody is logged in; run `wandb login`, set WANDB_API_KEY, or keep the "
            "run here with WANDB_MODE=offline"
        )


def needed_bytes(config: RunConfig, model: str, most: int | None = None) -> int:
    """Room on disk that a run asks for: `COPIES` of the trained weights in each checkpoint, and in one being written.

    Args:
        config: the resolved configuration.
        model: folder of the policy; of a hub id nobody knows the size before it is loaded, and it counts nothing.
        most: checkpoints kept at a time; None for all.
    """
    shape = read_shape(model)
    if shape is not None:
        width = ADAPTER_BYTES if config.model.lora.rank else BYTES[config.model.dtype]
        trained = shape.trained(config.model.lora) * width
    else:
        trained = sum(file.stat().st_size for file in weight_files(Path(model)))
    checkpoints = math.ceil(config.run.steps / (config.run.save_steps or config.run.steps))
    return COPIES * trained * (1 + min(checkpoints, most or checkpoints)) + SPARE_BYTES


def kept_checkpoints(config: RunConfig) -> int | None:
    """Checkpoints that stay at a time; None for all."""
    run = config.run
    return run.keep_last + (run.keep_best if config.evaluation.every else 0) if run.keep_last else None


def check_space(config: RunConfig, model: str, folder: RunFolder) -> None:
    """Refuse a run that would fill the disk; arguments as in `needed_bytes`.

    Files that a resumed or replaced run has there already count as room.

    Raises:
        UserError: with the room that is needed and that is there.
    """
    need, parent = needed_bytes(config, model, kept_checkpoints(config)), nearest_existing(folder.path)
    reused = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    free = shutil.disk_usage(parent).free + (reused if config.run.resume or config.run.overwrite else 0)
    if free < need:
        raise UserError(
            f"{parent} has {free >> 20:,} MiB free, but the run needs about {math.ceil(need / 2**20):,} MiB for its "
            "checkpoints; make room, set run.dir to a larger disk, raise run.save_steps, or set run.keep_last=1"
        )


def with_golds(problems: list[Problem], config: RunConfig) -> list[Problem]:
    """The problems that have a gold answer, once it is clear that the others need none.

    Raises:
        UserError: if a reward grades and a training problem has no gold.
    """
    from rlvr.rewards.accuracy import Accuracy

    labelled = [problem for problem in problems if problem.gold]
    graders = [name for name, reward in config.reward.items() if isinstance(reward, Accuracy)]
    if len(labelled) < len(problems) and graders:
        raise UserError(
            f"data.unlabelled=true with reward.{graders[0]}, which compares answers with golds; set reward=none and an "
            "algorithm without rewards (em_ft, one_shot_em, em_rl_sequence, em_rl_token), or data.unlabelled=false"
        )
    return labelled


LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def load_tokenizer(path: str, model: ModelSection) -> tuple[Any, int | None]:
    """The policy's tokenizer and the longest text it can read, in tokens (None where its configuration does not say).

    What cannot be trained is refused here, before it is loaded.

    Raises:
        UserError: if there is no model, or one whose loss would be wrong.
    """
    from transformers import AutoConfig, AutoTokenizer

    from rlvr.trainer.arguments import check_model_config

    try:
        source = {"revision": model.revision or "main", "trust_remote_code": model.trust_remote_code}
        config = AutoConfig.from_pretrained(path, **source)
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model.path={path} cannot be loaded; expected a folder or a hub id ({reason})") from None
    check_model_config(config)
    names = config.architectures or []
    if not any(part in name for name in names for part in LANGUAGE_MODELS):
        raise UserError(
            f"model.path={path} has architectures={names}; expected a causal language model, e.g. Qwen3ForCausalLM"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of model.path={path} has no end-of-text token; set eos_token in its configuration"
        )
    return tokenizer, getattr(config.get_text_config(), "max_position_embeddings", None)


def read_problems(
    config: RunConfig, tokenizer: Any, positions: int | None = None
) -> tuple[list[Problem], list[Problem], list[str]]:
    """Problems to train on, problems held out, and what people should know about how they were read.

    Raises:
        UserError: if the data cannot be read, or no prompt is short enough.
    """
    from rlvr.data.lengths import check_prompts, filter_long

    train, heldout = config.data.train(), config.data.heldout()[: config.evaluation.problems]
    longest = check_prompts([*train, *heldout], tokenizer)
    if positions is not None and longest + config.rollouts.max_completion_length > positions:
        raise UserError(
            f"rollouts.max_completion_length is {config.rollouts.max_completion_length} after a prompt of {longest} "
            f"tokens, but the model reads {positions} tokens at most; expected at most {max(positions - longest, 0)}"
        )
    notes, limit = config.data.notes(), config.data.prompt_limit()
    if limit is not None:
        train, dropped = filter_long(train, tokenizer, limit)
        heldout, dropped_heldout = filter_long(heldout, tokenizer, limit)
        notes = [
            *notes,
            f"{dropped} training and {dropped_heldout} held-out prompts of more than {limit} tokens left out",
        ]
    notes += _contamination(config, train)
    if not train:
        raise UserError("no training prompt is left; raise data.max_prompt_tokens or look at the data")
    return train, heldout, notes


def _contamination(config: RunConfig, train: list[Problem]) -> list[str]:
    """How much of the benchmarks stands in the training prompts, or how to find out."""
    from rlvr.evaluation.contamination_table import contamination_notes

    evaluation = config.evaluation
    if evaluation.contamination:
        folder = evaluation.benchmarks_dir
        return contamination_notes(
            train, evaluation.contamination, None if folder is None else Path(folder).expanduser()
        )
    if config.data.name == "arithmetic":
        return []
    return [
        "not searched for benchmark problems; evaluation.contamination=[math500,aime24] or `rlvr contamination` does so"
    ]
