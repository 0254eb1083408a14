"""The recorded update is the same for every number of ranks, slices and head."""

from pathlib import Path

import numpy as np
import pytest

from tests.golden_update.feed import EXPECTED, TOLERANCE, DividesAgain, error, run, save_model
from tests.golden_update.reference import G, P
from tests.golden_update.scenarios import CHANGES, scenario
from tests.ranks import run_ranks

LEAST_MOVE = 0.01


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("golden"))


def factorisations(name: str, ranks: int) -> list[int]:
    """Every micro-batch size that divides a rank's rows of an optimizer step."""
    rows = P * G // (scenario(name)["updates"] * ranks)
    return [size for size in (1, 2, 4, 8, 16) if rows % size == 0]


def assert_matches(name: str, result: dict, label: str) -> None:
    assert error(name, result) < TOLERANCE, f"{name}, {label}: {error(name, result):.2e}"
    np.testing.assert_allclose(result["losses"], EXPECTED[f"{name}/losses"], rtol=1e-5, atol=1e-6, err_msg=label)


def test_steps_are_large_enough_to_show_an_error() -> None:
    weights = np.load(Path(__file__).parent / "weights.npz")
    norm = np.sqrt(sum(float((value.astype(np.float64) ** 2).sum()) for value in weights.values()))
    for name in CHANGES:
        if name != "nothing_to_learn":
            assert np.linalg.norm(EXPECTED[f"{name}/update_0"]) > LEAST_MOVE * norm, name


@pytest.mark.parametrize("name", CHANGES)
def test_one_process_matches_for_every_slice_size_and_head(name: str, model: Path, tmp_path: Path) -> None:
    for micro in factorisations(name, 1):
        assert_matches(name, run(name, model, tmp_path, micro), f"micro-batch {micro}")
    assert_matches(name, run(name, model, tmp_path, 4, sparse=False), "micro-batch 4, dense head")


def test_the_suite_sees_a_wrong_factor(model: Path, tmp_path: Path) -> None:
    result = run("top20", model, tmp_path, 4, trainer_class=DividesAgain)
    assert error("top20", result) > 0.5


def test_two_ranks_match_for_every_slice_size_and_head(model: Path, tmp_path: Path) -> None:
    def on_rank(rank: int) -> list:
        return [
            (name, micro, sparse, run(name, model, tmp_path / str(rank), micro, sparse, ranks=2))
            for name in CHANGES
            for micro in factorisations(name, 2)
            for sparse in ((True, False) if micro == 2 else (True,))
        ]

    for rank, results in enumerate(run_ranks(2, on_rank, timeout=280)):
        for name, micro, sparse, result in results:
            assert result["engine"] == "DistributedDataParallel"
            assert_matches(name, result, f"rank {rank} of 2, micro-batch {micro}, sparse {sparse}")
