"""How large a policy is, from its folder alone: `config.json` and the headers of its safetensors files."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.config.schema import LoraSection
from rlvr.errors import UserError

BYTES = {"float32": 4, "bfloat16": 2}
ADAPTER_BYTES = 4
"""peft keeps adapters in float32, also on a base in bfloat16."""

DAMAGED = (OSError, struct.error, ValueError, MemoryError, OverflowError, AttributeError, TypeError, KeyError)
"""What reading the header of a damaged file may raise: any bytes may stand where its length and its JSON should."""


@dataclass(frozen=True)
class ModelShape:
    """What memory and disk depend on.

    Attributes:
        parameters: exact, summed over the headers of the safetensors files; tied weights are stored once.
        hidden: width of the residual stream.
        layers: transformer blocks.
        key_value_width: key-value heads times head size.
        vocabulary: tokens.
        linears: linear layers of the blocks by name, with inputs plus outputs of each.
    """

    parameters: int
    hidden: int
    layers: int
    key_value_width: int
    vocabulary: int
    linears: Mapping[str, int] = field(default_factory=dict)

    def trained(self, lora: LoraSection) -> int:
        """Weights that are trained: all, or those of the adapters."""
        if lora.rank == 0:
            return self.parameters
        everywhere = lora.target_modules == ["all-linear"]
        targets = tuple(f".{name}" for name in lora.target_modules)
        return lora.rank * sum(
            width for name, width in self.linears.items() if everywhere or f".{name}".endswith(targets)
        )


def read_shape(folder: str) -> ModelShape | None:
    """The shape of a local checkpoint; None if it is not a folder of safetensors, or its config names no sizes.

    Raises:
        UserError: if a file is damaged.
    """
    root = Path(folder).expanduser()
    files = weight_files(root)
    if not files or not (root / "config.json").is_file() or files[0].suffix != ".safetensors":
        return None
    shapes = {name: shape for file in files for name, shape in _header(file).items()}
    linears = {
        name.removesuffix(".weight"): sum(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and "layers." in name and name.endswith(".weight")
    }
    try:
        config: dict[str, Any] = json.loads((root / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"{root / 'config.json'} is no JSON ({error}); copy or download the model again") from None
    config = config.get("text_config", config)
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head_size = config.get("head_dim") or hidden // heads
        return ModelShape(
            sum(math.prod(shape) for shape in shapes.values()), hidden, config["num_hidden_layers"],
            (config.get("num_key_value_heads") or heads) * head_size, config["vocab_size"], linears,
        )  # fmt: skip
    except KeyError:  # an architecture with other names for its sizes
        return None


def weight_files(root: Path) -> list[Path]:
    """The files that `from_pretrained` reads weights from; a folder may hold the same weights once more."""
    index = root / "model.safetensors.index.json"
    if (root / "model.safetensors").is_file():
        return [root / "model.safetensors"]
    if index.is_file():
        return sorted(root / name for name in set(json.loads(index.read_text())["weight_map"].values()))
    return sorted(root.glob("pytorch_model*.bin"))


def _header(file: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a safetensors file."""
    try:
        with file.open("rb") as stream:
            header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except DAMAGED:
        raise UserError(
            f"{file} cannot be read as safetensors; expected the weights of a model: copy or download it again"
        ) from None
