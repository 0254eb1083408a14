"""What a checkpoint says of the run that made it, so that another run does not go on from it unnoticed."""

import dataclasses
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import rlvr
from rlvr.checkpoints.choosing import check_compatible
from rlvr.checkpoints.layout import checkpoint_name
from rlvr.checkpoints.manifest import read_manifest
from rlvr.launch.agreement import PACKAGES

METRIC = "heldout_accuracy"
"""The fact that says how good a checkpoint is."""

OPTIONAL = ("settings", "config")
"""Facts that a run from a configuration and one from a library tell differently; compared where both have them."""

ARGUMENTS = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1",
    "adam_beta2", "adam_epsilon", "max_grad_norm", "optim", "optim_args", "bf16", "fp16", "temperature",
    "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length", "beta",
)  # fmt: skip
"""Fields of a `GRPOConfig` that shape the update; sizes and seed are compared with the state that counts in them."""


def _digest(parts: Iterable[str | bytes]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of texts, each with its length before it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def _text(value: Any) -> str:
    """JSON; what is no JSON counts by its type, for its address would change from run to run."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=lambda other: type(other).__name__)


def data_fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Of prompts, golds and every other column, in their order."""
    return _digest(_text(dict(row)) for row in rows)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Of what turns texts into tokens: vocabulary, merges, special tokens, chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    for setting in ("padding", "truncation"):  # of the last call, not of the tokenizer
        parts.pop(setting, None)
    names = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return _digest([_text(parts), _text(names), _text(getattr(tokenizer, "chat_template", None))])


@cache
def code_fingerprint() -> str:
    """Of the package's own source."""
    root = Path(rlvr.__file__).parent
    files = sorted(root.rglob("*.py"))
    return _digest(part for path in files for part in (path.relative_to(root).as_posix(), path.read_bytes()))


def versions(engine: str) -> dict[str, str]:
    """The packages behind an engine."""
    names = (*PACKAGES, "deepspeed") if engine.startswith("zero") else PACKAGES
    return {name: importlib.metadata.version(name) for name in names}


def engine_name(stage: int | None, fsdp: bool = False) -> str:
    """`torch` for one process and DDP, whose checkpoints are alike; `zero0` to `zero3`; `fsdp`."""
    if stage is not None:
        return f"zero{stage}"
    return "fsdp" if fsdp else "torch"


def facts_of(ranks: int, engine: str, rows: Iterable[Mapping[str, Any]], tokenizer: Any) -> dict[str, Any]:
    """What every run can say.

    Args:
        ranks: processes.
        engine: as `engine_name` gives it.
        rows: the prompts of the stream, in order.
        tokenizer: of the policy.
    """
    return {
        "world_size": ranks,
        "engine": engine,
        "data": data_fingerprint(rows),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "code": code_fingerprint(),
        "packages": versions(engine),
    }


def library_settings(args: Any, algorithm: Any) -> dict[str, Any]:
    """What shapes the update where no configuration says it: TRL's arguments and the algorithm."""
    chosen = {name: getattr(args, name) for name in ARGUMENTS if hasattr(args, name)}
    answers = {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
    named = {name: {"is": type(answer).__name__, **dataclasses.asdict(answer)} for name, answer in answers.items()}
    plain: dict[str, Any] = json.loads(_text({"args": chosen, **named}))
    return plain


def wandb_run() -> str | None:
    """The id of the Weights & Biases run that goes on in this process."""
    module = sys.modules.get("wandb")
    found = None if module is None else getattr(module, "run", None)
    return None if found is None else str(found.id)


def damaged(checkpoint: Path, problems: list[str]) -> str:
    """One line about a checkpoint whose files are not as they were committed."""
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{checkpoint} is damaged ({problems[0]}{more}); go on from another checkpoint, or start anew"


def covered(name: str, allow: Iterable[str]) -> bool:
    """Whether a name is allowed, by itself or with the section it belongs to."""
    return any(f"{name}.".startswith(f"{part}.") for part in allow)


def check_facts(checkpoint: Path, now: Mapping[str, Any], allow: Iterable[str]) -> None:
    """Refuse a checkpoint of another run; the settings of a configuration are compared in `rlvr/resume.py`.

    Raises:
        UserError: naming every difference.
    """
    then = read_manifest(checkpoint).facts
    compared = {name: value for name, value in now.items() if name in then or name not in OPTIONAL}
    settings = [*compared.pop("config", {}), *then.get("config", {})]
    of_facts = [
        name
        for name in allow  # `data` is both a fact and a section
        if name.split(".")[0] in compared or not any(covered(setting, [name]) for setting in settings)
    ]
    engines = then.get("packages", {}).keys() ^ compared.get("packages", {}).keys()
    if "engine" in of_facts:  # DeepSpeed's version says nothing of an engine without it
        of_facts += [f"packages.{name}" for name in engines & {"deepspeed"}]
    check_compatible(checkpoint, compared, of_facts)


def moments_go_on(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the optimizer of a checkpoint can be read as it is, from the facts of both runs."""
    if then["engine"] != now["engine"]:
        return False
    return bool(now["engine"] == "torch" or then["world_size"] == now["world_size"])


def losses(then: Mapping[str, Any], now: Mapping[str, Any], step: int) -> str | None:
    """What a resume on other ranks loses, in one line; None where the ranks and the engine are the same."""
    if (then["engine"], then["world_size"]) == (now["engine"], now["world_size"]):
        return None
    whole = moments_go_on(then, now)
    kept, lost = (
        ("weights, optimizer and prompts", "") if whole else ("weights and prompts", "the optimizer's moments, ")
    )
    return (
        f"{checkpoint_name(step)} is of {then['world_size']} processes ({then['engine']}), this run has "
        f"{now['world_size']} ({now['engine']}): {kept} go on; {lost}what is left of the rollout batch in use, surplus "
        "groups and the promise of an exact resume are lost"
    )
