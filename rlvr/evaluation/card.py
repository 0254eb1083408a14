"""`rlvr card`: the results of a checkpoint as a block of its model card."""

from collections.abc import Sequence
from pathlib import Path

from rlvr.errors import UserError
from rlvr.evaluation.choosing import choose, find_one
from rlvr.evaluation.results_table import protocols_sheet, read_sections, sheet
from rlvr.evaluation.scores import read_ledger
from rlvr.evaluation.wording import Sheet, markdown_table, markdown_text, write_whole

START, END = "<!-- rlvr:evaluation -->", "<!-- /rlvr:evaluation -->"

FRONT_MATTER = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n"


def model_card_block(
    ledger: Path,
    checkpoint: str,
    *,
    benchmarks: Sequence[str] | None = None,
    protocol: str | None = None,
    ks: Sequence[int] | None = None,
) -> str:
    """The results of a checkpoint with their intervals, and how each benchmark was asked.

    Args:
        ledger: its folder.
        checkpoint: as for `rlvr.evaluation.choosing.find_in_ledger`; one is meant.
        benchmarks: names; None for all.
        protocol: its name, or the first digits of its hash; None for all, a table each.
        ks: k of pass@k and maj@k; None for the largest power of two up to n.

    Returns:
        Markdown between two comments that `insert_block` finds again.

    Raises:
        UserError: if something is unknown, or a k is above the samples of a problem.
    """
    everything = read_ledger(ledger, benchmarks)
    key = find_one(everything, checkpoint)
    scores = [one for one in choose(everything, None, protocol) if one.checkpoint_hash == key]
    if not scores:
        raise UserError(
            f"{checkpoint} has no scores under protocol {protocol}; leave the protocol out to have them all"
        )
    lines = [START, "## Evaluation", "", f"Weights with hash `{key}`."]
    for section in read_sections(scores, ks):
        table = sheet(section)
        kept = [index for index, column in enumerate(table.columns) if column != "checkpoint"]
        rows = [[row[index] for index in kept] for row in table.rows]
        scored = Sheet(table.title, [table.columns[index] for index in kept], rows)
        lines += ["", f"### {markdown_text(table.title.capitalize())}", "", markdown_table(scored), ""]
        lines += [*table.notes, "", markdown_table(protocols_sheet(section))]
    return "\n".join([*lines, END]) + "\n"


def insert_block(text: str, block: str) -> str:
    """A card with the block in place of its old one, or at its end; everything else stays as it is.

    Args:
        text: the card.
        block: of `model_card_block`.

    Raises:
        UserError: if the comments around an old block are not a pair.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    block = block.replace("\n", newline)
    starts, ends = text.count(START), text.count(END)
    if not starts and not ends:
        gap = "" if not text else newline if text.endswith("\n") else 2 * newline
        return text + gap + block
    if starts != 1 or ends != 1 or text.index(START) > text.index(END):
        raise UserError(
            f"the card has {starts} times {START} and {ends} times {END}; expected each once, in this order: remove "
            "the old block by hand"
        )
    after = text[text.index(END) + len(END) :]
    return text[: text.index(START)] + block.removesuffix(newline) + after


def new_card(name: str, block: str) -> str:
    """A card that has nothing but the block.

    Args:
        name: of the model.
        block: of `model_card_block`.
    """
    return f"{FRONT_MATTER}# {name}\n\n{block}"


def write_card(path: Path, block: str) -> Path:
    """Put the block into a model card, written whole or not at all.

    Args:
        path: the card, or the folder whose `README.md` it is; made if it does not exist.
        block: of `model_card_block`.

    Returns:
        The card.

    Raises:
        UserError: if it cannot be read or written, or its old block is broken.
    """
    card = path / "README.md" if path.is_dir() or path.suffix != ".md" else path
    if not card.exists():
        return write_whole(card, new_card(card.resolve().parent.name, block))
    try:
        text = card.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{card} cannot be read ({error}); expected a Markdown file in UTF-8") from None
    return write_whole(card, insert_block(text, block))
