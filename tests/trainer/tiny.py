"""Tiny models and tokenizers for tests: random weights, one token per word."""

from typing import Any


def make_tokenizer(vocabulary: int) -> Any:
    """`<pad>` 0, `<eos>` 1, and words `t2`, `t3`, ... split at spaces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, **{f"t{index}": index for index in range(2, vocabulary)}}
    core = Tokenizer(models.WordLevel(words, unk_token="t2"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def make_qwen3(vocabulary: int = 23, tied: bool = False, seed: int = 0, **changes: Any) -> Any:
    """A Qwen3 of a few thousand random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.3,
    }  # fmt: skip
    config = Qwen3Config(
        vocab_size=vocabulary, tie_word_embeddings=tied, eos_token_id=1, pad_token_id=0, **{**sizes, **changes}
    )
    return Qwen3ForCausalLM(config)
