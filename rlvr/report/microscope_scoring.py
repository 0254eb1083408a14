"""Asks policies about recorded tokens: for what a record lacks, and for a second opinion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr.errors import UserError
from rlvr.report.microscope_rows import Sample, Scores
from rlvr.report.reading import RunData, is_number
from rlvr.report.tokens import Decode

TOP = 5
"""Most likely tokens asked for at each position, as many as a record holds."""

Ask = Callable[[str, Sequence[Sample]], list[Scores]]
"""(place of a policy, completions) -> what it says of each."""


@dataclass(frozen=True)
class Policy:
    """Who is asked about what a record lacks.

    Attributes:
        place: what `rlvr.analysis.scoring.open_policy` opens.
        label: what the page calls it.
    """

    place: str
    label: str


def sampling_policy(run: RunData, step: int) -> Policy | None:
    """The policy nearest to the one that sampled for an optimizer step, never a later one; None where none is known.

    Step s was sampled after s - 1 steps: by `checkpoint-{s-1}`, where it was saved, or by the start of the run for
    s = 1. The label says how many steps lie between.
    """
    saved = [(int(path.name.rsplit("-", 1)[1]), path) for path in run.folder.complete_checkpoints()]
    before = [(number, path) for number, path in saved if number <= step - 1]
    if before:
        number, path = before[-1]
        return Policy(str(path), _aged(f"checkpoints/{path.name}", step - 1 - number))
    start = run.setting("model", "path")
    return Policy(start, _aged(f"the start ({start})", step - 1)) if isinstance(start, str) else None


def _aged(label: str, steps: int) -> str:
    return label if steps == 0 else f"{label}, {steps} step{'s' * (steps > 1)} before"


def fill(run: RunData, samples: Sequence[Sample], ask: Ask) -> tuple[list[Sample], list[str]]:
    """Ask the policy nearest to the sampling one for entropies and alternatives that were not recorded.

    What was recorded stays as it is. A policy that cannot be asked leaves a gap and a sentence.

    Returns:
        The completions, in order, and the sentences.
    """
    wanting: dict[str | None, list[tuple[int, str]]] = {}
    for index, sample in enumerate(samples):
        if not sample.scores.complete and len(sample.token_ids):
            policy = sampling_policy(run, sample.facts["step"])
            place, label = (None, "") if policy is None else (policy.place, policy.label)
            wanting.setdefault(place, []).append((index, label))
    filled, remarks = list(samples), []
    for place, rows in wanting.items():
        if place is None:
            remarks.append(f"{len(rows)} completions have gaps, and the run does not say which policy to ask.")
            continue
        try:
            answers = ask(place, [samples[index] for index, _ in rows])
        except UserError as error:
            remarks.append(f"{len(rows)} completions have gaps that {place} could not fill: {error}.")
            continue
        for (index, label), answer in zip(rows, answers, strict=True):
            filled[index] = replace(samples[index], scores=_completed(samples[index].scores, answer, label))
    return filled, remarks


def _completed(recorded: Scores, answer: Scores, label: str) -> Scores:
    """What was recorded, and beside it what was not."""
    if recorded.entropies is None:
        recorded = replace(recorded, entropies=answer.entropies, logprobs=answer.logprobs, by=label)
    if recorded.top_ids is None:
        recorded = replace(recorded, top_ids=answer.top_ids, top_logprobs=answer.top_logprobs, top_by=label)
    return recorded


def asker(run: RunData, decode: Decode | None, say: Callable[[str], None]) -> Ask:
    """What opens a policy and scores with it, at the sampling temperature of a run.

    Args:
        run: whose `rollouts.temperature` divides the logits; 1 where the run does not say.
        decode: of the run's tokenizer, to compare another policy's with; None compares nothing.
        say: told before a policy is asked.
    """
    given = run.setting("rollouts", "temperature")
    temperature = float(given) if is_number(given) else 1.0

    def ask(place: str, samples: Sequence[Sample]) -> list[Scores]:
        from rlvr.analysis.scoring import open_policy, prompt_ids_of, score_completions

        tokens = [sample.token_ids.tolist() for sample in samples]
        say(f"{place} scores {len(tokens)} completions, {sum(map(len, tokens)):,} tokens")
        model, tokenizer = open_policy(place)
        vocabulary = model.config.get_text_config().vocab_size
        check_tokens(place, tokenizer, vocabulary, tokens, decode)
        prompts = [prompt_ids_of(tokenizer, sample.facts["prompt"]) for sample in samples]
        found = score_completions(model, prompts, tokens, temperature=temperature, top=min(TOP, vocabulary))
        return [
            Scores(one.entropies, one.logprobs, place, one.top_ids, one.top_logprobs, place) for one in found
        ]  # fmt: skip

    return ask


def check_tokens(
    place: str, tokenizer: Any, vocabulary: int, completions: Sequence[list[int]], decode: Decode | None
) -> None:
    """Refuse a policy to which the recorded token ids mean something else.

    Raises:
        UserError: if an id is none of its own, or its tokenizer reads the ids as another text.
    """
    largest = max((max(ids) for ids in completions if ids), default=0)
    if largest >= vocabulary:
        raise UserError(
            f"{place} has {vocabulary} tokens, but token {largest} was recorded; expected a policy with the tokenizer "
            "of the run"
        )
    for ids in completions if decode is not None else []:
        theirs = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if decode is not None and theirs != decode(ids):
            raise UserError(
                f"{place} reads recorded tokens as {theirs[:40]!r}, the run as {decode(ids)[:40]!r}; expected a policy "
                "with the tokenizer of the run"
            )
