"""Prompts that a tokenizer cannot read are refused; the longest one is measured."""

import pytest

from rlvr.assets import base_policy_path
from rlvr.config.compose import compose
from rlvr.data.base import Problem
from rlvr.data.lengths import check_prompts
from rlvr.errors import UserError
from rlvr.preflight import load_tokenizer, read_problems


def builtin() -> tuple:
    config = compose(["model.path=builtin"])
    return load_tokenizer(str(base_policy_path()), config.model)


def test_words_that_the_vocabulary_lacks_are_refused() -> None:
    tokenizer, _ = builtin()
    with pytest.raises(UserError, match=r"cannot read the prompt 'What is 3\+4\?'.*model.path=builtin knows digits"):
        check_prompts([Problem("1+2=", "3"), Problem("What is 3+4?", "7")][1:], tokenizer)


def test_the_longest_prompt_is_measured_in_tokens() -> None:
    tokenizer, _ = builtin()
    assert check_prompts([Problem("1+2=", "3"), Problem("1+2*3=", "7")], tokenizer) == 6


def test_an_answer_that_the_model_cannot_hold_is_refused_with_the_room_there_is() -> None:
    tokenizer, positions = builtin()
    assert positions is not None
    config = compose([f"rollouts.max_completion_length={positions}"])
    with pytest.raises(
        UserError, match=f"the model reads {positions} tokens at most; expected at most {positions - 8}"
    ):
        read_problems(config, tokenizer, positions)
