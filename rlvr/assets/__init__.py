"""What ships with the package: the tiny base policy of the built-in task."""

from pathlib import Path


def base_policy_path() -> Path:
    """The folder of the base policy, for `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

    Raises:
        FileNotFoundError: if the installation lacks its files.
    """
    folder = Path(__file__).resolve().parent / "base_policy"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} holds no model; run `python -m scripts.build_base_policy` or reinstall")
    return folder
