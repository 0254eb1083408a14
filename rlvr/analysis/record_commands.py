"""`rlvr analyze distribution`, `tokens` and `traces`: what the record of a run shows by itself."""

import argparse
import shlex
from typing import Any

from rlvr.analysis.options import add_action, out_folder
from rlvr.errors import UserError


def add_parser(actions: Any) -> None:
    """Add the actions."""
    add_action(
        actions, "distribution", "entropies of all tokens: histogram and percentiles",
        "How token entropies are distributed (arXiv 2506.01939, section 3). Reads `entropies`.",
    )  # fmt: skip
    tokens = add_action(
        actions, "tokens", "the tokens of highest and lowest mean entropy",
        "Which tokens stand where the policy is undecided. Reads `token_ids`, `entropies` and `kept`.",
    )  # fmt: skip
    tokens.add_argument("--minimum", type=int, default=100, metavar="N", help="occurrences of a token (100)")
    tokens.add_argument("--show", type=int, default=15, metavar="N", help="tokens of each kind to show (15)")
    tokens.add_argument("--tokenizer", metavar="PLACE", help="a folder or hub id; the run's own if not given")
    add_action(
        actions, "traces", "percentiles of entropy over training",
        "The 0th, 5th, ... 100th percentile of entropy of each recorded step. Reads `entropies`.",
    )  # fmt: skip


def run_distribution(arguments: argparse.Namespace) -> int:
    """`rlvr analyze distribution`."""
    from rlvr.analysis.entropy import distribution
    from rlvr.analysis.output import publish
    from rlvr.analysis.record_findings import of_distribution
    from rlvr.analysis.records import find_records, read_entropies, said_of

    files = find_records(arguments.places, arguments.steps)
    read = read_entropies(files)
    finding = of_distribution(distribution(read.values), said_of(files, read.completions, read.left_out))
    publish(
        finding, out_folder(arguments), arguments.format, shlex.join(["rlvr", "analyze", "tokens", *arguments.places])
    )
    return 0


def run_tokens(arguments: argparse.Namespace) -> int:
    """`rlvr analyze tokens`."""
    from rlvr.analysis.output import publish
    from rlvr.analysis.record_findings import of_tokens
    from rlvr.analysis.records import find_records, said_of, token_rows
    from rlvr.analysis.tokenizers import decoder_of
    from rlvr.analysis.vocabulary import TokenTally

    files = find_records(arguments.places, arguments.steps)
    decoder = decoder_of(files, arguments.tokenizer)
    tally, completions, left_out = TokenTally(), 0, 0
    for file in files:
        for rows in token_rows(file.path, ["entropies", "token_ids", "kept"]):
            tally.add(rows.tokens["token_ids"], rows.tokens["entropies"], rows.tokens["kept"])
            completions, left_out = completions + len(rows.lengths), left_out + rows.left_out
    table = tally.table(arguments.minimum)
    if not table.ids.size:
        raise UserError(
            f"no token stands {arguments.minimum} times among the {int(tally.counts.sum()):,} scored ones; lower "
            "--minimum, or name more steps"
        )
    notes = [*said_of(files, completions, left_out), f"Texts of tokens: {decoder.source}."]
    finding = of_tokens(table, decoder, arguments.show, arguments.minimum, notes)
    publish(
        finding, out_folder(arguments), arguments.format, shlex.join(["rlvr", "analyze", "traces", *arguments.places])
    )
    return 0


def run_traces(arguments: argparse.Namespace) -> int:
    """`rlvr analyze traces`."""
    import numpy as np

    from rlvr.analysis.entropy import percentile_trace
    from rlvr.analysis.output import publish
    from rlvr.analysis.record_findings import of_traces
    from rlvr.analysis.records import find_records, read_entropies

    files = find_records(arguments.places, arguments.steps)
    steps = [file.step for file in files if file.step is not None]
    if len(steps) < len(files) or len(set(steps)) < len(steps):
        raise UserError(
            "traces need one file a step, named step_000120.parquet; expected one run folder, not "
            f"{' '.join(arguments.places)}"
        )
    read = [read_entropies([file]) for file in files]
    values = np.stack([percentile_trace(one.values) for one in read])
    left_out = sum(one.left_out for one in read)
    finding = of_traces(np.array(steps), values, [one.values.size for one in read], left_out)
    run = arguments.places[0]
    following = shlex.join(["rlvr", "analyze", "overlap", run, "--checkpoints", "builtin", run])
    publish(finding, out_folder(arguments), arguments.format, following)
    return 0


ACTIONS = {"distribution": run_distribution, "tokens": run_tokens, "traces": run_traces}
