"""What may not stand beside the importance correction of a separate sampler."""

from typing import Any

from rlvr.errors import UserError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1, None),
    "top_k": (0, -1, None),
    "min_p": (0, None),
    "repetition_penalty": (1, None),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "min_tokens": (0, None),
    "logit_bias": (None,),
    "bad_words": (None,),
    "allowed_token_ids": (None,),
    "structured_outputs": (None,),
    "vllm_structured_outputs_regex": (None,),
}
"""Settings of vLLM that change the distribution it draws from, with the values at which they do not."""


def check_correctable(asked: dict[str, Any], switch: str) -> None:
    """Refuse to correct for a sampler that draws from another distribution on purpose.

    vLLM reports log-probabilities after its cuts and penalties; the policy's are before them. Their ratio is then no
    rounding error that a weight takes back: its mean is not 1, and a token that a cut had left alone gets less weight.

    Args:
        asked: settings by the name the caller knows them by, e.g. `rollouts.top_p` or `args.min_p`; those that say
            nothing about the distribution may stand among them.
        switch: what turns the correction off, as the caller writes it.

    Raises:
        UserError: naming the settings.
    """
    extra = next((value for name, value in asked.items() if name.endswith("generation_kwargs")), None)
    inside = {f"generation_kwargs.{name}": value for name, value in extra.items()} if isinstance(extra, dict) else {}
    given = [f"{name}={value}" for name, value in {**asked, **inside}.items() if value not in _neutral(name, value)]
    if given:
        raise UserError(
            f"{', '.join(given)} with vLLM and its importance correction; the ratio of the full policy to a sampler "
            f"that cuts or penalises is biased: leave {'it' if len(given) == 1 else 'them'} out, or set {switch}"
        )


def _neutral(name: str, value: Any) -> tuple[Any, ...]:
    return NEUTRAL.get(name.rsplit(".", 1)[-1], (value,))
