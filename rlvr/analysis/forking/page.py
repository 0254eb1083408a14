"""`forks.html`: the answer with its forks marked, the figure, and every position with its branches; one file."""

from pathlib import Path

from rlvr.analysis.forking.output import draw_forks, figure_size, finding_of, main_outcomes
from rlvr.analysis.forking.result import ForkResult, PositionOutcomes
from rlvr.analysis.forking.run import Found
from rlvr.evaluation.wording import Sheet, write_whole
from rlvr.report.drawing import drawn
from rlvr.report.page import page
from rlvr.report.tokens import Token, entropy_legend, entropy_level, token_text, visible


def write_page(out: Path, found: Found, title: str) -> Path:
    """Write the page of an analysis.

    Args:
        out: folder.
        found: what was found.
        title: of the page.

    Returns:
        The page, a single file that opens from the disk.
    """
    result = found.result
    text = page(
        "forks.html.j2",
        title=visible(title),
        facts=[(name, visible(found.facts[name])) for name in ("model", "question", "base_tokens")]
        + [(name, visible(value)) for name, value in found.facts["settings"].items()],
        tokens=_tokens(found),
        legend=entropy_legend(),
        figure=drawn(lambda figure: draw_forks(figure, result), "forks", visible(title), figure_size(result)),
        forks=finding_of(result, title).sheet,
        positions=_positions(result),
    )
    return write_whole(out / "forks.html", text)


def _tokens(found: Found) -> list[Token]:
    """The base path; the tokens that decide are marked."""
    marked = {place for fork in found.result.forks for place in range(fork.first, fork.last + 1)}
    looked = {one.position: one for one in found.result.positions}
    tokens = []
    for place, (text, entropy) in enumerate(zip(found.texts, found.base.entropies, strict=True)):
        prob = found.base.branches[place][0][1]
        details = f"position {place}, {entropy:.3f} nats, p {prob:.3f}"
        if place in looked:
            details += f", hazard {looked[place].hazard:.2f}, drift {looked[place].drift:.2f}"
        tokens.append(Token(token_text(text), place in marked, entropy_level(entropy), details))
    return tokens


def _positions(result: ForkResult) -> Sheet:
    """A row per position: its numbers, and what came after each of its branches."""
    columns = ["position", "token", "entropy", "hazard", "survival", "drift", "outcomes", "after each branch"]
    rows = [
        [
            str(one.position), token_text(one.text), f"{one.entropy:.3f}", f"{one.hazard:.2f}", f"{one.survival:.2f}",
            f"{one.drift:.2f}", main_outcomes(result, one.outcomes), _branches(result, one),
        ]
        for one in result.positions
    ]  # fmt: skip
    return Sheet("Every position", columns, rows, left=("token", "outcomes", "after each branch"))


def _branches(result: ForkResult, one: PositionOutcomes) -> str:
    return "; ".join(
        f"{token_text(branch.text)} ({branch.prob:.2f}): {main_outcomes(result, branch.outcomes)}"
        for branch in one.branches
    )
