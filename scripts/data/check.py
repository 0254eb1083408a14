"""Look at a data source before training on it: counts, samples, and golds that only an identical text matches.

    python scripts/data/check.py data=files data.train_files=train.jsonl
    python scripts/data/check.py data=gsm8k --samples 5

A gold that the grader cannot read is paid for only if the policy writes it letter by letter, so such problems teach
little. They are found by grading each gold with a thin space behind it, which changes its text and not its value.
"""

import argparse
import sys

from rlvr.config.compose import compose
from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.rewards.extract import last_boxed
from rlvr.rewards.grade import grade


def forms_of(problem: Problem) -> tuple[str, ...]:
    """The accepted forms of a gold."""
    return (problem.gold,) if isinstance(problem.gold, str) else problem.gold


def unread(problems: list[Problem]) -> list[tuple[Problem, str]]:
    """Problems with a form that is not correct with a thin space behind it, and what the grader says."""
    found = []
    for problem in problems:
        for form in forms_of(problem):
            inner = form.strip("$") if form.count("$") == 2 else last_boxed(form) or form
            verdict = grade(f"\\boxed{{{inner}\\,}}", problem.gold)
            if not verdict.correct:
                found.append((problem, f"{form!r}: {verdict.status} {verdict.reason}".strip()))
    return found


def show(title: str, problems: list[Problem], samples: int) -> None:
    """Print one list of problems."""
    print(f"\n{title}: {len(problems)} problems")
    for problem in problems[:samples]:
        print(f"  prompt {problem.prompt!r}\n  gold   {problem.gold!r}")
    odd = unread(problems)
    print(f"  golds that only an identical text matches: {len(odd)}")
    for problem, reason in odd[:samples]:
        print(f"    {problem.prompt_id} {reason}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help="as for `rlvr train`, e.g. data=gsm8k")
    parser.add_argument("--samples", type=int, default=2, help="problems printed from each list, at most")
    arguments = parser.parse_args()
    try:
        data = compose(arguments.settings).data
        lists = {"training": data.train(), "held out": data.heldout()}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(data.notes()))
    for title, problems in lists.items():
        show(title, problems, arguments.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
