"""Train the tiny base policy that ships in `rlvr/assets/base_policy`: `python -m scripts.build_base_policy`.

It learns to reduce arithmetic expressions one pair at a time from demonstrations that pick the pair at random: it knows
every arithmetic fact and how to finish, and nothing about precedence. The defaults are the recipe of the shipped model.
"""

import argparse
import math
import platform
import random
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rlvr.data.arithmetic import Arithmetic
from rlvr.data.demonstrations import END_OF_TEXT, demonstrate
from rlvr.data.expressions import OPERATORS
from rlvr.rewards.grade import grade_many

PAD = "<|pad|>"
IGNORED = -100
LONGEST = 256  # tokens; ten times what the task needs
DRAWS = 8  # samples of the whole held-out set that the card averages
MODEL_CARD = Path(__file__).with_name("base_policy_card.md")


def build_tokenizer(largest_number: int) -> PreTrainedTokenizerFast:
    """One token per number from 0 to `largest_number`, operator, `=`, `\\boxed{` and `}`; decoding gives the text back.

    There is no unknown token: text outside the vocabulary raises instead of being read as something else.
    """
    pieces = [PAD, END_OF_TEXT, *OPERATORS, "=", "\\boxed{", "}", *(str(n) for n in range(largest_number + 1))]
    core = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[0-9]+|\\boxed\{|[^0-9]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A random Qwen3 model of the recipe's size, with tied embeddings, that samples plainly unless told otherwise."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.key_value_heads,
        head_dim=args.hidden // args.heads,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def demonstration_batch(
    prompts: list[str], rng: random.Random, tokenizer: PreTrainedTokenizerFast
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh random-order demonstrations, padded on the right: (B, T) ids, attention mask and labels.

    Prompt and padding carry no label: the prompts are the task's to write, not the policy's.
    """
    asked = tokenizer(prompts)["input_ids"]
    answered = tokenizer([demonstrate(prompt, rng) for prompt in prompts])["input_ids"]
    width = max(len(a) + len(b) for a, b in zip(asked, answered, strict=True))
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(zip(asked, answered, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    return ids, mask, labels


def train(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], args: argparse.Namespace
) -> float:
    """Supervised steps with a linear warm-up and a cosine decay to zero; returns the last 50 steps' mean loss."""
    rng = random.Random(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, args.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / args.steps))),
    )
    losses: list[float] = []
    started = time.perf_counter()
    model.train()
    for step in range(args.steps):
        ids, mask, labels = demonstration_batch(rng.sample(prompts, args.batch), rng, tokenizer)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            mean = sum(losses[-50:]) / len(losses[-50:])
            print(f"step {step + 1}  loss {mean:.4f} nats  {time.perf_counter() - started:.0f} s", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])


@torch.no_grad()
def sampled_accuracy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Arithmetic, seed: int) -> float:
    """Share of the held-out problems answered right and finished, one sample each at temperature 1.

    With 512 problems near one half, chance alone moves it by 0.02 (one standard deviation), hence the draws of `main`.
    """
    model.eval()
    torch.manual_seed(seed)
    problems = data.heldout()
    inputs = tokenizer([str(problem.prompt) for problem in problems], return_tensors="pt", padding=True)
    new = model.generate(**inputs, max_new_tokens=32)[:, inputs["input_ids"].shape[1] :]
    truncated = [tokenizer.eos_token_id not in row for row in new.tolist()]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    verdicts = grade_many(texts, [problem.gold for problem in problems], truncated)
    return sum(verdict.correct for verdict in verdicts) / len(verdicts)


def recipe() -> argparse.Namespace:
    """The recipe from the command line; the defaults built the shipped model."""
    parser = argparse.ArgumentParser(description="Train the tiny base policy of the built-in arithmetic task.")
    parser.add_argument("--out", type=Path, default=Path("rlvr/assets/base_policy"))
    parser.add_argument("--seed", type=int, default=0, help="of weights, problem order and solutions")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=128, help="demonstrations a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--intermediate", type=int, default=224)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--key-value-heads", type=int, default=2)
    parser.add_argument("--largest-number", type=int, default=99, help="numbers 0 to this are one token each")
    return parser.parse_args()


def main() -> None:
    """Train, measure, save the model, its tokenizer and its card."""
    args = recipe()
    torch.manual_seed(args.seed)
    data = Arithmetic()
    tokenizer = build_tokenizer(args.largest_number)
    model = build_model(args, tokenizer)
    loss = train(model, tokenizer, [str(problem.prompt) for problem in data.train()], args)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)  # before it pads a batch: it would write that padding into its file
    accuracies = [sampled_accuracy(model, tokenizer, data, seed) for seed in range(DRAWS)]
    accuracy = sum(accuracies) / DRAWS
    facts = vars(args) | {
        "data": data,
        "loss": f"{loss:.4f}",
        "accuracy": f"{accuracy:.3f}",
        "lowest": f"{min(accuracies):.3f}",
        "highest": f"{max(accuracies):.3f}",
        "draws": DRAWS,
        "parameters": f"{model.num_parameters():,}",
        "vocabulary": len(tokenizer),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    (args.out / "README.md").write_text(MODEL_CARD.read_text(encoding="utf-8").format_map(facts), encoding="utf-8")
    print(f"loss {loss:.4f} nats, sampled accuracy {accuracy:.3f}, {model.num_parameters():,} parameters, {args.out}")


if __name__ == "__main__":
    main()
