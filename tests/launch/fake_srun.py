"""Stands in for srun: tasks on this machine, the highest exit code of them, and signals as srun treats them.

As srun(1) says: SIGTERM and SIGHUP end the tasks with SIGKILL; one SIGINT only reports, a second one within a second
kills; SIGUSR1 goes to every task. A task that fails ends the others, as with --kill-on-bad-exit.
"""

import os
import signal
import subprocess
import sys
import time
from types import FrameType

GRACE_SECONDS = 5.0

arguments = sys.argv[1:]
options: dict[str, str] = {}
while arguments[0].startswith("--"):
    name, _, value = arguments.pop(0).removeprefix("--").partition("=")
    options[name] = value
if "SLURM_STEP_ID" in os.environ:
    sys.exit("srun inside srun: a task has started tasks")
count = int(options["ntasks"])
shared = {
    "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_ID": "0",
}  # fmt: skip
tasks: list[subprocess.Popen] = []
interrupted = 0.0


def send(number: int) -> None:
    for task in tasks:
        if task.poll() is None:
            task.send_signal(number)


def handle(number: int, _frame: FrameType | None) -> None:
    global interrupted
    now = time.monotonic()
    if number in (signal.SIGTERM, signal.SIGHUP) or (number == signal.SIGINT and now - interrupted < 1):
        print("srun: forcing job termination", file=sys.stderr, flush=True)
        send(signal.SIGKILL)
    elif number == signal.SIGINT:
        interrupted = now
        print("srun: interrupt (one more within 1 sec to abort)", file=sys.stderr, flush=True)
    else:
        send(number)


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, handle)
for rank in range(count):
    place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    # In a session of its own, as a task that another daemon has started.
    tasks.append(subprocess.Popen(arguments, env={**os.environ, **shared, **place}, start_new_session=True))
deadline: float | None = None
while any(task.poll() is None for task in tasks):
    if deadline is None and any(task.returncode for task in tasks):
        send(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
    if deadline is not None and time.monotonic() > deadline:
        send(signal.SIGKILL)
    time.sleep(0.05)
sys.exit(max(128 - task.returncode if task.returncode < 0 else task.returncode for task in tasks))
