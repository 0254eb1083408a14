"""A tiny model on the disk, benchmarks of a few problems, and ways to look at a ledger."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlvr.evaluation.benchmarks import read_benchmark
from rlvr.evaluation.ledger import Ledger
from rlvr.evaluation.requests import Key, Request, sample_seed

CHAT = (
    "{% for message in messages %}<bos>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
BENCHMARKS = ("aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench", "gsm8k", "arithmetic")
COUNTS = {
    "aime24": 30, "aime25": 30, "amc23": 40, "math500": 500, "minerva": 272, "olympiadbench": 675, "gsm8k": 1319,
    "arithmetic": 512,
}  # fmt: skip
SPECIAL = ("<pad>", "<eos>", "<bos>", "<end>")


def make_tokenizer() -> Any:
    """A token per printable ASCII character; any other is `?`. `<bos>` goes in front, `<end>` is a second end."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = ["\n", *(chr(code) for code in range(32, 127))]
    words = {text: index for index, text in enumerate([*SPECIAL, *characters])}
    core = Tokenizer(models.WordLevel(words, unk_token="?"))
    core.normalizer = normalizers.Replace(Regex(r"[^\n -~]"), "?")
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", padding_side="left",
        additional_special_tokens=["<end>"], chat_template=CHAT,
    )  # fmt: skip


def make_model(seed: int = 0, sharp: float = 0.35, **changes: Any) -> Any:
    """A Qwen3 of a few thousand random weights over the characters, in evaluation mode; `<eos>` and `<end>` end."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 8192, "initializer_range": sharp,
    }  # fmt: skip
    config = Qwen3Config(
        vocab_size=100, tie_word_embeddings=True, eos_token_id=[1, 3], pad_token_id=0, **{**sizes, **changes}
    )
    return Qwen3ForCausalLM(config).eval()


def save_model(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A folder that `from_pretrained` loads."""
    make_model(seed, **changes).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_checkpoint(run: Path, step: int, seed: int | None = None, complete: bool = True) -> Path:
    """A checkpoint of a run folder; the trainer's own state comes last."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").touch()
    folder = save_model(run / "checkpoints" / f"checkpoint-{step}", step if seed is None else seed)
    if complete:
        (folder / "rlvr_state_0.pt").touch()
    return folder


def write_benchmarks(folder: Path, problems: int = 3) -> Path:
    """The seven files, each in its own format, with a few problems of unlike lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BENCHMARKS[:-1]:
        rows = []
        for index in range(problems):
            question, gold = f"What is {index} and {name}?" + " Really." * (7 * (index % 4)), str(index)
            rows.append({
                "gsm8k": {"question": question, "answer": f"It is <<{gold}={gold}>>{gold}.\n#### {gold}"},
                "amc23": {"id": index, "question": question, "problem": question, "answer": float(index)},
                "minerva": {"problem": question, "solution": f"So \\boxed{{{gold}}}.", "type": "t", "idx": index},
                "olympiadbench": {"id": index, "question": question, "final_answer": [f"${gold}$"], "context": None},
            }.get(name, {"problem": question, "answer": gold}))  # fmt: skip
        file = folder / str(read_benchmark(name)[0].file)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def requests_of(prompts: Sequence[Any], samples: int = 1, seed: int = 0) -> list[Request]:
    """Samples of prompts that are their own problems."""
    keys = [Key("b", f"p{index:03}", sample) for index in range(len(prompts)) for sample in range(samples)]
    return [Request(key, prompts[int(key.problem_id[1:])], sample_seed(seed, key)) for key in keys]


def ledger_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Whole rows of each cell under each protocol, sorted."""
    return {
        f"{cell.folder.relative_to(folder)} {name}": cell.rows(name).to_pylist()
        for cell in Ledger(folder).cells()
        for name in cell.describe()["protocols"]
    }


def ledger_files(folder: Path) -> dict[str, bytes]:
    """Every file of a ledger's cells, but those that were set aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("cells/**/*"))
        if path.is_file() and path.suffix != ".torn" and not path.name.endswith(".partial")
    }
