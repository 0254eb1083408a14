"""The pool: order, deadlines, deaths, threads, forks, and nobody left behind."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.rewards import batch, cores
from rlvr.rewards.breaker import Limits
from rlvr.rewards.cores import usable_cores
from rlvr.rewards.policy import DEFAULT
from rlvr.rewards.pool import Pool
from rlvr.rewards.protocol import Outcome, Task, pack, unpack
from tests.ranks import run_ranks

HOSTILE_DECIDE = "tests.rewards.hostile:decide"
PATIENT = Limits(strikes=None, patience=None)


@pytest.fixture(scope="module")
def shared() -> Iterator[Pool]:
    """A pool that tests use one after the other."""
    with Pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def hostile() -> Iterator[Pool]:
    """A pool whose workers do what an answer says, see `tests/rewards/hostile.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with Pool(decide=HOSTILE_DECIDE) as pool:
            yield pool


def do(*answers: str) -> list[Task]:
    return [Task(answer, (f"gold {index}",)) for index, answer in enumerate(answers)]


def algebra(count: int) -> list[Task]:
    """Different comparisons, every second one of equal expressions."""
    return [Task(f"{n}x+{n}", (f"{n}(x+{1 + n % 2})",)) for n in range(1, count + 1)]


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def expected(count: int) -> list[str]:
    return ["wrong" if n % 2 else "correct" for n in range(1, count + 1)]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    """Whether processes end within some time."""
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def test_frames_carry_any_text_and_wait_for_their_end() -> None:
    message = {"text": 'lone \ud800, NUL \x00, "quoted", é', "number": 1.5}
    frame = pack(message)
    received = bytearray(frame[:-1])
    assert unpack(received) is None
    received += frame[-1:] + frame
    assert unpack(received) == message
    assert unpack(received) == message
    assert not received


def test_nothing_starts_before_it_is_needed() -> None:
    with Pool() as pool:
        assert pool.compare([], DEFAULT) == []
        assert pool.processes() == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_outcomes_are_in_order_for_any_number_of_workers(shared: Pool, workers: int) -> None:
    assert statuses(shared.compare(algebra(24), DEFAULT, workers=workers)) == expected(24)


def test_a_request_longer_than_a_sockets_buffer(shared: Pool) -> None:
    long = "+".join(["x"] * 300_000)
    outcome = shared.compare([Task("2", (long,))], DEFAULT, workers=1, limits=Limits(1.0))[0]
    assert outcome.status in ("wrong", "timeout", "crash", "unparseable")
    assert statuses(shared.compare(algebra(2), DEFAULT)) == expected(2)


def test_workers_are_refused_below_one(shared: Pool) -> None:
    with pytest.raises(UserError, match="expected 1 or more"):
        shared.compare(algebra(1), DEFAULT, workers=0)


HOSTILE = [
    "9^{9^{9^{9}}}",
    "2^{2^{35}}",
    "{" * 50_000 + "1" + "}" * 50_000,
    "\\{" + ",".join(f"\\frac{{{n}}}{{x}}" for n in range(3000)) + "\\}",
    r"\frac{1}{" * 400 + "2" + "}" * 400,
    "(" * 500 + "x" + ")" * 500,
    "99999999!",
    r"(1+x)^{100000}",
]


def test_hostile_answers_end_in_time_and_cost_the_parent_nothing(shared: Pool) -> None:
    shared.compare(algebra(4), DEFAULT)
    before = _resident()
    for answer in HOSTILE:
        started = time.perf_counter()
        outcome = shared.compare([Task(answer, ("4+x",))], DEFAULT, workers=1, limits=Limits(1.0))[0]
        assert time.perf_counter() - started < 1.0 + 1, answer[:40]
        assert outcome.status != "correct"
    assert _resident() - before < 8 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_hangs_is_killed_and_the_next_one_works(hostile: Pool) -> None:
    for answer in ("sleep", "spin", "power"):
        started = time.perf_counter()
        outcomes = hostile.compare(do(answer, "fine"), DEFAULT, workers=1, limits=Limits(0.5))
        assert time.perf_counter() - started < 0.5 + 1.5  # the first one waits for the pool to start
        assert outcomes[0] == Outcome("timeout", "the comparison took more than 0.5 s", 0.5)
        assert outcomes[1].status == "correct"


def test_memory_is_limited(hostile: Pool) -> None:
    outcomes = hostile.compare(do("memory", "fine", "exception", "fine"), DEFAULT, workers=1)
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
        ("crash", "out of memory"), ("correct", ""), ("crash", "RecursionError: too deep"), ("correct", ""),
    ]  # fmt: skip


def test_an_answer_that_ends_every_worker_is_a_crash(hostile: Pool) -> None:
    for answer in ("exit", "segfault"):
        outcomes = hostile.compare(do(answer, "fine"), DEFAULT, workers=1)
        assert (outcomes[0].status, outcomes[0].reason) == ("crash", "the comparison ended its process")
        assert outcomes[1].status == "correct"


def test_an_answer_writes_no_file_and_starts_no_process(hostile: Pool, tmp_path: Path) -> None:
    outcomes = hostile.compare(do(f"write {tmp_path / 'x'}", "fork"), DEFAULT, workers=1)
    assert outcomes[0].reason.startswith("OSError")
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size == 0
    assert os.geteuid() == 0 or outcomes[1].reason.startswith("BlockingIOError")


def test_an_interpreter_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(decide="rlvr.rewards.nowhere:decide") as pool, pytest.raises(RuntimeError, match="No module named"):
        pool.compare(algebra(1), DEFAULT)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Pool() as pool, pytest.raises(RuntimeError, match="they end without a word"):
        pool.compare(algebra(1), DEFAULT)


def test_workers_killed_at_random_lose_nothing(hostile: Pool) -> None:
    stop, kills = threading.Event(), {"worker": 0, "nursery": 0}
    chance = random.Random(0)

    def kill() -> None:
        began = time.monotonic()
        while not stop.wait(0.15):
            nursery, *workers = hostile.processes() or [0]
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
            if workers and not kills["nursery"] and time.monotonic() - began > 0.5:
                os.kill(nursery, signal.SIGKILL)
                kills["nursery"] += 1

    hostile.compare(do("fine"), DEFAULT)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcomes = hostile.compare(do(*["milliseconds 25"] * 150), DEFAULT, workers=2, limits=PATIENT)
    finally:
        stop.set()
        killer.join()
    assert statuses(outcomes) == ["correct"] * 150
    assert kills["worker"] > 2
    assert kills["nursery"] == 1


def test_threads_share_a_pool(shared: Pool) -> None:
    results: dict[int, list[str]] = {}

    def work(count: int) -> None:
        results[count] = statuses(shared.compare(algebra(count), DEFAULT, workers=2))

    threads = [threading.Thread(target=work, args=(count,)) for count in (3, 5, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {count: expected(count) for count in (3, 5, 8)}


def test_an_interrupted_batch_leaves_no_answer_for_the_next(hostile: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch.Batch, "_expire", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hostile.compare(do("sleep", "sleep"), DEFAULT, workers=2)
    assert statuses(hostile.compare(do("fine", "fine", "fine"), DEFAULT, workers=2)) == ["correct"] * 3


def test_forked_ranks_have_their_own_workers(shared: Pool) -> None:
    shared.compare(algebra(2), DEFAULT, workers=2)
    before = shared.processes()

    def rank_work(rank: int) -> tuple[list[str], list[int]]:
        found = statuses(shared.compare(algebra(4), DEFAULT, workers=1))
        return found, shared.processes()

    ranks = run_ranks(2, rank_work)
    assert [found for found, _ in ranks] == [expected(4)] * 2
    assert not set(before) & {pid for _, pids in ranks for pid in pids}
    assert gone([pid for _, pids in ranks for pid in pids])
    assert shared.processes() == before
    assert statuses(shared.compare(algebra(4), DEFAULT, workers=2)) == expected(4)


def test_closing_leaves_no_process_and_the_pool_can_go_on() -> None:
    pool = Pool()
    pool.compare(algebra(4), DEFAULT, workers=2)
    pids = pool.processes()
    assert len(pids) == 3
    pool.close()
    pool.close()
    assert gone(pids, 2.0)
    assert pool.processes() == []
    assert statuses(pool.compare(algebra(2), DEFAULT)) == expected(2)
    pool.close()


SCRIPT = """
import sys, threading
from rlvr.rewards.breaker import Limits
from rlvr.rewards.policy import DEFAULT
from rlvr.rewards.pool import Pool
from rlvr.rewards.protocol import Task

SHARED = Pool(decide="tests.rewards.hostile:decide")

def work():  # a thread that ends must not take the workers along
    SHARED.compare([Task("fine", ("x",)), Task("fine", ("y",))], DEFAULT, workers=2)

thread = threading.Thread(target=work)
thread.start()
thread.join()
before = SHARED.processes()
assert SHARED.compare([Task("fine", ("z",))], DEFAULT, workers=2)[0].status == "correct"
assert set(before) <= set(SHARED.processes())
print(*before, flush=True)
if "end" not in sys.argv:
    SHARED.compare([Task("power", ("x",))], DEFAULT, workers=1, limits=Limits(600))
"""


@pytest.mark.parametrize("how", ["end", "kill", "interrupt"])
def test_a_script_without_a_main_guard_leaves_no_process(how: str, tmp_path: Path) -> None:
    script = tmp_path / "random.py"  # shadows a module of the standard library, for this script only
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "-P", str(script), how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        # A shell starts what it puts into the background with this signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    pids = [int(text) for text in process.stdout.readline().split()]
    assert len(pids) >= 2
    if how != "end":
        assert alive(pids[0])
        time.sleep(0.3)  # now a worker is busy for ever
        process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
    assert process.wait(20) == {"end": 0, "kill": -signal.SIGKILL, "interrupt": -signal.SIGINT}[how]
    process.stdout.close()
    assert gone(pids, 5.0)


def test_injected_code_does_nothing(tmp_path: Path, shared: Pool) -> None:
    injected = f"__import__('os').system('touch {tmp_path / 'y'}')"
    shared.compare([Task(injected, ("x+1",)), Task(rf"\text{{{injected}}}", ("x",))], DEFAULT)
    assert not (tmp_path / "y").exists()


def test_usable_cores_shares_a_machine_between_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    assert usable_cores() == 8
    (tmp_path / "cpu.max").write_text("350000 100000\n")
    assert usable_cores() == 4
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert usable_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert usable_cores() == 1
