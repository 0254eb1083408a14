"""How a benchmark was asked and graded, and the hashes that tell two ways apart."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from rlvr.config.evaluation import EvaluationConfig, changed_fields
from rlvr.data.base import Prompt
from rlvr.data.templates import BOXED_INSTRUCTION, PAPER_8020, check_template, render_prompt
from rlvr.evaluation.benchmarks import Loaded
from rlvr.rewards.policy import Policy
from rlvr.rewards.version import grader_version
from rlvr.sampling.settings import Sampling


@dataclass(frozen=True)
class Protocol:
    """What a score of one benchmark depends on, besides the model and the seed.

    The number of samples is no part of it: each row is one sample, drawn alike however many there are, and more can be
    added later.

    Attributes:
        name: of the named protocol, with what was changed, for people.
        benchmark: name, version and digest of the problems.
        template: a name or a text; hashed as the text that a name stands for.
        chat: whether the model's chat template was applied.
        system: of the chat.
        sampling: how tokens were drawn.
        decoding: the rule that changed the logits, with its numbers; empty for none.
        engine: back end and number format.
        grading: the rules of the grader.
    """

    name: str
    benchmark: dict[str, Any]
    template: str
    chat: bool
    system: str | None
    sampling: Sampling
    decoding: dict[str, Any]
    engine: str
    grading: Policy

    def render(self, question: Prompt) -> Prompt:
        """The prompt of a question: text, or a chat."""
        prompt = render_prompt(question, self.template, self.system if self.template == "chat" else None)
        if not self.chat or not isinstance(prompt, str):
            return prompt
        return render_prompt(prompt, "chat", self.system)

    def drawing(self) -> dict[str, Any]:
        """What the completions depend on."""
        texts = {"paper_8020": PAPER_8020, "qwen_boxed": f"qwen_boxed: {BOXED_INSTRUCTION}"}
        return {
            "benchmark": self.benchmark, "template": texts.get(self.template, self.template),
            "chat": self.chat, "system": self.system,
            "sampling": asdict(self.sampling), "decoding": self.decoding, "engine": self.engine,
        }  # fmt: skip

    def everything(self) -> dict[str, Any]:
        """What the scores depend on."""
        return {**self.drawing(), **grading_part(self.grading)}

    @property
    def draw_hash(self) -> str:
        """16 hex digits that stand for `drawing()`."""
        return short_hash(self.drawing())

    @property
    def hash(self) -> str:
        """16 hex digits that stand for `everything()`."""
        return short_hash(self.everything())


def short_hash(values: dict[str, Any]) -> str:
    """First 16 hex digits of sha256 of the JSON text with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def grading_part(policy: Policy) -> dict[str, Any]:
    """What a verdict depends on besides the completion."""
    return {"grading": asdict(policy), "grader": grader_version()}


def protocol_of(config: EvaluationConfig, benchmark: Loaded, engine: str) -> Protocol:
    """The protocol of one benchmark: its own template, extraction and length where it has them, else the named ones.

    Raises:
        UserError: for a template that does not fit.
    """
    changed = changed_fields(config)
    name = ", ".join([config.protocol, *(f"{key}={value}" for key, value in changed.items())])
    template = benchmark.template or config.template
    chat = config.chat and benchmark.template is None
    check_template(template, config.system if template == "chat" else None)
    decoding = {} if config.decoding is None else {"name": config.decoding.name, **asdict(config.decoding)}
    return Protocol(
        name=name,
        benchmark={"name": benchmark.name, "version": benchmark.version, "digest": benchmark.digest},
        template=template,
        chat=chat,
        system=config.system if chat or template == "chat" else None,
        sampling=Sampling(config.temperature, config.top_p, config.top_k, benchmark.max_tokens or config.max_tokens),
        decoding=decoding,
        engine=engine,
        grading=Policy(extract=benchmark.extract or config.extract, think=config.think),
    )


def regraded(values: dict[str, Any], rules: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A protocol of a ledger under other rules of grading, and under the grader as it is now.

    Args:
        values: what `cell.json` holds for a protocol.
        rules: fields of `Policy` that are to change; empty for none.

    Returns:
        Its hash, and what to keep for it.
    """
    name = values["name"]
    drawing = {key: value for key, value in values.items() if key not in ("name", "grading", "grader")}
    everything = {**drawing, **grading_part(Policy(**{**values["grading"], **rules}))}
    changed = [f"{key}={value}" for key, value in rules.items() if values["grading"][key] != value]
    return short_hash(everything), {"name": ", ".join([name, *changed]), **everything}
