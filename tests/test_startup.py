"""What start-up costs: what is not imported, when the collector rests, and the seconds to the first sampled token."""

import gc
import subprocess
import sys

import pytest

from rlvr.collecting import collector_rests
from scripts.bench_startup import MILESTONES, run_once, seconds_of_imports

SECONDS = 12.0


def test_composing_imports_no_algebra_and_no_trainer() -> None:
    code = (
        "import sys; from rlvr.config.compose import compose; compose([]); "
        "print([name for name in ('math_verify', 'sympy', 'transformers', 'trl', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_collector_rests_and_works_again_after_an_error() -> None:
    def fail() -> None:
        with collector_rests():
            with collector_rests():
                pass
            assert not gc.isenabled()
            raise RuntimeError("on purpose")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert gc.isenabled()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_first_token_is_sampled_within_twelve_seconds_of_a_quiet_machine() -> None:
    """Busy is by how much a process that only imports TRL takes longer than it works, just before or just after."""
    tries = []
    for _ in range(3):
        before, found, after = seconds_of_imports(), run_once([]), seconds_of_imports()
        assert [found[name] for name in MILESTONES] == sorted(found.values())
        busy = max(1.0, *(wall / processor for wall, processor in (before, after)))
        tries.append((found["first token"], SECONDS * busy))
        if found["first token"] < SECONDS * busy:
            return
    pytest.fail(f"(seconds to the first token, bound) of three starts: {tries}")
