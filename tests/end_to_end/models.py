"""Tiny policies of two architectures with tokenizers of their own, taught the form of an answer in a second."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlvr.data.base import Problem

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.1,
    "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
LESSONS = 120


def gsm8k_rows(count: int = 24) -> list[dict[str, Any]]:
    """Problems as GSM8K writes them: the gold follows `####`, the working has calculator marks."""
    rows = []
    for index in range(count):
        first, second = index % 5, index // 5
        total = first + second
        working = f"He has {first} + {second} = <<{first}+{second}={total}>>{total} apples.\n#### {total}"
        rows.append({"question": f"Tom has {first} apples and buys {second}. How many are there?", "answer": working})
    return rows


def math_rows(count: int = 24) -> list[dict[str, Any]]:
    """Problems as MATH-500 writes them: a solution with a box, and the answer in LaTeX."""
    rows = []
    for index in range(count):
        answer = f"\\frac{{1}}{{{index % 3 + 2}}}"
        more = " And $b = 0$." * (index % 4)
        problem = f"Let $f(x) = \\frac{{x}}{{{index % 3 + 2}}}$ and $a = {index}$.{more} What is $f(1)$?"
        solution = f"We have $f(1) = \\boxed{{{answer}}}.$"
        rows.append({"problem": problem, "solution": solution, "answer": answer, "subject": "Algebra", "level": 1})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def bpe_tokenizer(texts: Sequence[str], chat: bool) -> Any:
    """Byte-level BPE trained on the texts; `<pad>` 0 and `<eos>` 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    if chat:
        tokenizer.chat_template = CHAT
    return tokenizer


def make_model(kind: str, vocabulary: int) -> Any:
    """A `qwen3` with tied embeddings or a `llama` without: random weights, 20,000 to 40,000 of them."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, tie_word_embeddings=True, **SIZES))
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, bos_token_id=None, **SIZES))


def teach_form(model: Any, tokenizer: Any, prompts: Sequence[str], golds: Sequence[str]) -> None:
    """Cross-entropy on `\\boxed{gold}<eos>` with the golds dealt at random: the form of an answer, not the answer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(LESSONS):
        chosen = torch.randint(len(prompts), (8,), generator=draw).tolist()
        dealt = torch.randint(len(golds), (8,), generator=draw).tolist()
        rows = [
            (tokenizer(prompts[p])["input_ids"], [*tokenizer(f"\\boxed{{{golds[g]}}}")["input_ids"], 1])
            for p, g in zip(chosen, dealt, strict=True)
        ]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (prompt, answer) in enumerate(rows):
            ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def make_policy(folder: Path, kind: str, problems: Sequence[Problem], chat: bool) -> str:
    """A policy saved where `model.path` finds it."""
    plain = PlainChat() if chat else None
    prompts = [plain.render(problem.prompt) if plain else str(problem.prompt) for problem in problems]
    golds = [str(problem.gold) for problem in problems]
    tokenizer = bpe_tokenizer([*prompts, *(f"\\boxed{{{gold}}}" for gold in golds)], chat)
    model = make_model(kind, len(tokenizer))
    teach_form(model, tokenizer, prompts, golds)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class PlainChat:
    """The chat template above, by hand: the lessons are given in what the trainer is expected to render."""

    def render(self, messages: Any) -> str:
        """What the policy reads."""
        turns = "".join(f"<|{message['role']}|>{message['content']}\n" for message in messages)
        return f"{turns}<|assistant|>"
