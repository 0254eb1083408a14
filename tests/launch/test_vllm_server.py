"""The script that starts a vLLM server, with a stand-in for `trl vllm-serve`."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.source import ROOT

SCRIPT = ROOT / "scripts" / "launch_vllm_server.sh"
SERVER = """
import http.server, sys
open("asked", "w").write(" ".join(sys.argv[1:]))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a `trl` in it."""
    (tmp_path / "server.py").write_text(SERVER)
    return tmp_path


def start(place: Path, trl: str, *arguments: str) -> subprocess.Popen:
    (place / "trl").write_text(f"#!/bin/bash\n{trl}\n")
    (place / "trl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "RLVR_VLLM_HOST": "node7"}
    return subprocess.Popen(
        [SCRIPT, *arguments], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_address_appears_once_the_server_answers(place: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = [
        "my/model",
        "--port",
        port,
        "--tensor-parallel",
        "2",
        "--address-file",
        "address",
        "--",
        "--dtype",
        "auto",
    ]
    process = start(place, f'exec {sys.executable} server.py "$@"', *arguments)
    deadline = time.monotonic() + 30
    while not (place / "address").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (place / "address").read_text() == (
        f"trl.vllm_mode=server trl.vllm_server_host=node7 trl.vllm_server_port={port}\n"
    )
    assert (place / "asked").read_text() == (
        f"vllm-serve --model my/model --host 0.0.0.0 --port {port} --tensor_parallel_size 2 --data_parallel_size 1 "
        "--dtype auto"
    )
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert not (place / "address").exists(), "nobody is to train with a server that is gone"
    assert "train on the other GPUs with: rlvr train rollouts.backend=vllm trl.vllm_mode=server" in said


def test_a_server_that_ends_before_it_answers(place: Path) -> None:
    process = start(place, "exit 3", "my/model", "--port", "1")
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "the server ended with 3 before it answered" in said) == (3, True)


def test_a_port_that_somebody_has_is_refused_before_the_start(place: Path) -> None:
    (place / "address").write_text("of the other server")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        process = start(place, "touch asked", "my/model", "--port", port, "--address-file", "address")
        _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"port {port} of this machine is taken already; choose another with --port" in said
    assert not (place / "asked").exists()
    assert (place / "address").read_text() == "of the other server"


def test_the_answer_of_a_server_that_came_later_is_not_taken_for_ours(place: Path) -> None:
    """Ours loads for minutes; another may have taken the port by then, and ours ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (place / "curl").write_text("#!/bin/bash\nuntil [ -e foreign ]; do sleep 0.1; done; sleep 2; exit 0\n")
    (place / "curl").chmod(0o755)
    process = start(place, "touch foreign; exit 3", "my/model", "--port", port, "--address-file", "address")
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "the server ended with 3 before it answered" in said) == (3, True)
    assert not (place / "address").exists()


def test_a_server_that_never_answers(place: Path) -> None:
    process = start(place, "exec sleep 60", "my/model", "--port", "1", "--wait", "1")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "no answer on port 1 after 1 seconds" in said


@pytest.mark.parametrize("arguments", [[], ["--port", "1"], ["my/model", "--prot", "1"], ["my/model", "--port"]])
def test_arguments_that_make_no_server(arguments: list[str], place: Path) -> None:
    process = start(place, "touch asked", *arguments)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "scripts/launch_vllm_server.sh MODEL" in said
    assert not (place / "asked").exists()
