"""What the documents tell people to type: it composes, its sizes divide, and it is not refused before it starts."""

import re
import shlex
from pathlib import Path

import pytest

from rlvr.config.compose import compose
from rlvr.config.schema import RunConfig
from rlvr.launch.slurm import read_site
from rlvr.preflight import run_sizes
from rlvr.train import name_run
from tests.source import ROOT
from tests.test_docs import markdown

FENCE = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(rlvr (?:train|plan) [^`\n]+)`")
PLACEHOLDER = re.compile(r"=S(?:\s|$)|\.\.\.|[=\s][A-Z]{3,}\b|=[A-Z]\b")
"""A name to be filled in, `launch.node_rank=K`; such a command is no command yet."""


def commands() -> list[tuple[str, str]]:
    """`rlvr train` and `rlvr plan` of every document, each with its page."""
    found = []
    for path in markdown():
        text = path.read_text()
        blocks = "".join(FENCE.findall(text)).replace("\\\n", " ")
        lines = [line.strip() for line in blocks.splitlines()] + INLINE.findall(text)
        page = path.relative_to(ROOT).as_posix()
        found += [(page, line) for line in lines if re.match(r"(?:\w+=\S+ )*(?:\S*/)?rlvr (?:train|plan) ", line)]
    return [(page, line) for page, line in found if not PLACEHOLDER.search(line.split(" #")[0])]


def overrides_of(line: str) -> list[str]:
    """The settings in a command; the options with dashes of `rlvr plan` are left out."""
    words = shlex.split(line, comments=True)
    words = words[next(at for at, word in enumerate(words) if word in ("train", "plan")) + 1 :]
    return [word for word in words if "=" in word and not word.startswith("--")]


def is_of_the_reader(line: str) -> bool:
    """Whether it goes on from a file that only the reader has."""
    return "--from" in line or "my_forks" in line or "=reinforce" in line or "=batch_baseline" in line


def check(config: RunConfig) -> None:
    ranks = config.launch.ranks or 1
    run_sizes(config, ranks)
    name_run(config, 1 if config.launch.kind == "slurm" else config.launch.nodes)


@pytest.mark.parametrize(("page", "line"), [case for case in commands() if not is_of_the_reader(case[1])])
def test_a_command_of_the_documents_is_not_refused(page: str, line: str) -> None:
    config = compose(overrides_of(line))
    check(config)
    assert config.run.name


def test_the_reader_finds_commands() -> None:
    found = commands()
    assert len(found) > 30
    assert {"README.md", "docs/scaling.md", "recipes/dapo/README.md"} <= {page for page, _ in found}


def test_the_example_of_a_site_is_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    [example] = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    path = tmp_path / "launch_site.yaml"
    path.write_text(example)
    site = read_site(path)
    assert site.gpus.format(processes=8) == "--gpus-per-node=8"
    assert site.sbatch == ["--exclusive"]
