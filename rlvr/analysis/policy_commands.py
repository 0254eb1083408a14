"""`rlvr analyze overlap`, `drift` and `critical`: what several policies say of the same tokens."""

import argparse
import shlex
from typing import Any

from rlvr.analysis.options import add_action, add_policies, out_folder
from rlvr.errors import UserError


def add_parser(actions: Any) -> None:
    """Add the actions."""
    overlap = add_action(
        actions, "overlap", "whether policies have their forks in the same places",
        "Overlap of the positions of highest entropy between policies, on the same tokens (arXiv 2506.01939, table 1).",
    )  # fmt: skip
    policies = "models, in order: builtin, folders, run folders (newest checkpoint), hub ids"
    overlap.add_argument("--checkpoints", nargs="+", required=True, metavar="MODEL", help=policies)
    overlap.add_argument("--keep", type=float, default=0.2, metavar="SHARE", help="of highest entropy (0.2)")
    add_policies(overlap)
    drift = add_action(
        actions, "drift", "which entropies training changed",
        "Change of entropy from one policy to another, by percentile of the entropy before (arXiv 2506.01939).",
    )  # fmt: skip
    drift.add_argument("--before", required=True, metavar="MODEL", help="the policy that training began with")
    drift.add_argument("--after", required=True, metavar="MODEL", help="the trained one")
    add_policies(drift)
    critical = add_action(
        actions, "critical", "tokens of wrong answers that led astray",
        "Contrastive scores of two policies (arXiv 2411.19943, eq. 1) on the tokens of wrong completions.",
    )  # fmt: skip
    critical.add_argument("--positive", required=True, metavar="MODEL", help="trained on right answers")
    critical.add_argument("--negative", required=True, metavar="MODEL", help="trained on wrong answers")
    critical.add_argument("--beta", type=float, default=1.0, help="strength of the contrast (1)")
    critical.add_argument("--show", type=int, default=20, metavar="N", help="tokens to show (20)")
    critical.add_argument("--completions", type=int, metavar="N", help="so many wrong ones, evenly spaced; else all")
    critical.add_argument("--tokens-per-pass", type=int, default=16384, metavar="N", help="memory only (16384)")


def _read(arguments: argparse.Namespace, wrong: bool = False) -> tuple[Any, list[str]]:
    """The completions, and what to know about them."""
    from rlvr.analysis.records import find_records, said_of
    from rlvr.analysis.rescoring import read_completions

    files = find_records(arguments.places, arguments.steps)
    completions = read_completions(files, arguments.completions, wrong=wrong)
    return completions, said_of(files, len(completions.prompts), 0)


def run_overlap(arguments: argparse.Namespace) -> int:
    """`rlvr analyze overlap`."""
    from rlvr.analysis.output import publish
    from rlvr.analysis.policy_findings import of_overlaps
    from rlvr.analysis.rescoring import score_policies
    from rlvr.analysis.shift import overlaps
    from rlvr.selection.select import exact_share

    try:
        exact_share(arguments.keep)
    except ValueError:
        raise UserError(f"--keep is {arguments.keep}; expected a share above 0 and at most 1, e.g. 0.2") from None
    completions, notes = _read(arguments)
    scored = score_policies(completions, arguments.checkpoints, arguments.temperature, arguments.tokens_per_pass)
    finding = of_overlaps(arguments.checkpoints, overlaps(scored, arguments.keep), arguments.keep, scored, notes)
    ends = ["--before", arguments.checkpoints[0], "--after", arguments.checkpoints[-1]]
    following = shlex.join(["rlvr", "analyze", "drift", *arguments.places, *ends])
    publish(finding, out_folder(arguments), arguments.format, following)
    return 0


def run_drift(arguments: argparse.Namespace) -> int:
    """`rlvr analyze drift`."""
    import numpy as np

    from rlvr.analysis.output import publish
    from rlvr.analysis.policy_findings import of_drift
    from rlvr.analysis.rescoring import score_policies
    from rlvr.analysis.shift import BINS, drift

    completions, notes = _read(arguments)
    if sum(completions.lengths) < BINS:
        raise UserError(f"{sum(completions.lengths)} tokens are too few for {BINS} bins; name more steps")
    before, after = score_policies(
        completions, [arguments.before, arguments.after], arguments.temperature, arguments.tokens_per_pass
    )
    codes = np.unique(np.array(completions.problems, dtype=object), return_inverse=True)[1]
    found = drift(before, after, np.repeat(codes, completions.lengths))
    finding = of_drift(found, arguments.before, arguments.after, notes)
    publish(
        finding, out_folder(arguments), arguments.format, shlex.join(["rlvr", "analyze", "errors", *arguments.places])
    )
    return 0


def run_critical(arguments: argparse.Namespace) -> int:
    """`rlvr analyze critical`."""
    import numpy as np

    from rlvr.analysis.critical import critical_scores
    from rlvr.analysis.output import publish
    from rlvr.analysis.policy_findings import of_critical
    from rlvr.analysis.rescoring import Tokenized
    from rlvr.analysis.scoring import open_policy

    if not 0 <= arguments.beta < float("inf"):
        raise UserError(f"--beta is {arguments.beta}; expected 0 or more")
    if arguments.tokens_per_pass < 1:
        raise UserError(f"--tokens-per-pass is {arguments.tokens_per_pass}; expected at least 1")
    completions, notes = _read(arguments, wrong=True)
    tokenized = Tokenized(completions)
    (positive, tokenizer), (negative, other) = open_policy(arguments.positive), open_policy(arguments.negative)
    tokenized.take(arguments.positive, tokenizer)
    tokenized.take(arguments.negative, other)
    scores = critical_scores(
        positive, negative, tokenized.prompt_ids, completions.token_ids, beta=arguments.beta,
        tokens_per_pass=arguments.tokens_per_pass,
    )  # fmt: skip
    flat = np.concatenate(list(scores))
    decode = lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))  # noqa: E731
    finding = of_critical(completions, flat, decode, arguments.show, notes)
    publish(
        finding, out_folder(arguments), arguments.format, shlex.join(["rlvr", "analyze", "errors", *arguments.places])
    )
    return 0


ACTIONS = {"overlap": run_overlap, "drift": run_drift, "critical": run_critical}
