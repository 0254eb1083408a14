"""The block of results in a model card, on the disk and on the hub."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from rlvr.errors import UserError
from rlvr.evaluation.card import END, START, insert_block, model_card_block, write_card
from rlvr.evaluation.publishing import publish
from tests.evaluation.made_scores import made, run_of, written

BLOCK = f"{START}\nnew\n{END}\n"


def made_ledger(folder: Path) -> Path:
    return written(folder, [*run_of([6, 9], total=500), made([[1, 0]] * 4)])


def test_the_block_has_scores_intervals_and_the_protocol(tmp_path: Path) -> None:
    ledger = made_ledger(tmp_path / "led")
    block = model_card_block(ledger, "checkpoint-20")
    assert block.startswith(START)
    assert block.endswith(f"{END}\n")
    assert "| sums | 12 of 500 | 2 | 75.0 % (" in block
    for fact in ("| template | {question} |", "| temperature | 1 |", "| max_tokens | 20 |", "| grader | 1 (made) |"):
        assert fact in block
    assert f"sha256 {'d' * 16}" in block
    assert "checkpoint-20" not in block, "a path of somebody's disk is nobody's business"
    with pytest.raises(UserError, match="stands for 2 checkpoints"):
        model_card_block(ledger, "runs/x")
    with pytest.raises(UserError, match="protocol cold is not in the ledger"):
        model_card_block(ledger, "checkpoint-20", protocol="cold")


def test_two_protocols_are_two_tables_and_a_protocol_of_others_is_refused(tmp_path: Path) -> None:
    mine = [made([[1, 0]] * 4), made([[1, 1]] * 4, temperature=0.6, name="cold")]
    ledger = written(tmp_path / "led", [*mine, made([[1]], checkpoint="b", temperature=0.3, name="other")])
    block = model_card_block(ledger, "builtin")
    assert block.count("### Protocol") == 2
    assert model_card_block(ledger, "builtin", protocol="cold").count("### Protocol") == 1
    with pytest.raises(UserError, match="builtin has no scores under protocol other"):
        model_card_block(ledger, "builtin", protocol="other")


def test_a_block_is_added_once_and_replaced_after() -> None:
    assert insert_block("# A\n\ntext", BLOCK) == f"# A\n\ntext\n\n{BLOCK}"
    assert insert_block("# A\n", BLOCK) == f"# A\n\n{BLOCK}"
    assert insert_block("", BLOCK) == BLOCK
    old = f"---\nlicense: mit\n---\n# A\n{START}\nold\n{END}\n\n## After\n"
    new = insert_block(old, BLOCK)
    assert new == old.replace("old", "new")
    assert insert_block(new, BLOCK) == new
    assert insert_block(f"a {START} b {END} c", BLOCK) == f"a {START}\nnew\n{END} c"


def test_line_ends_of_the_card_stay() -> None:
    assert insert_block("# A\r\n", BLOCK) == "# A\r\n\r\n" + BLOCK.replace("\n", "\r\n")


@pytest.mark.parametrize("text", [START, END, f"{END}{START}", f"{START}{START}{END}", f"{START}{END}{END}"])
def test_a_broken_block_is_left_to_people(text: str) -> None:
    with pytest.raises(UserError, match="remove the old block by hand"):
        insert_block(text, BLOCK)


def test_a_card_is_made_or_changed_on_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    card = write_card(folder, BLOCK)
    text = card.read_text()
    assert card == folder / "README.md"
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert text.endswith(f"# model\n\n{BLOCK}")
    card.write_bytes(b"# mine\r\n")
    write_card(card, BLOCK)
    assert card.read_bytes().startswith(b"# mine\r\n\r\n<!--")
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="expected a Markdown file in UTF-8"):
        write_card(card, BLOCK)
    assert card.read_bytes() == b"\xff\xfe"


class Hub:
    """A stand-in for the hub, with one repository."""

    endpoint = "https://hub"

    def __init__(self, folder: Path, card: str | None = None, error: Exception | None = None) -> None:
        self.folder, self.card, self.error = folder, card, error
        self.missing: Exception = RemoteEntryNotFoundError("404", response=response(404))
        self.uploads: list[dict[str, Any]] = []

    def model_info(self, repo_id: str) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(sha="c0ffee")

    def hf_hub_download(self, repo_id: str, name: str, revision: str) -> str:
        assert (name, revision) == ("README.md", "c0ffee")
        if self.card is None:
            raise self.missing
        path = self.folder / "README.md"
        path.write_bytes(self.card.encode())
        return str(path)

    def upload_file(self, **given: Any) -> None:
        self.uploads.append(given)
        self.card = given["path_or_fileobj"].decode()


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub"))


def test_publishing_changes_the_block_alone_and_only_where_it_differs(tmp_path: Path) -> None:
    hub: Any = Hub(tmp_path, f"---\nlicense: mit\n---\n# mine\r\n{START}\r\nold\r\n{END}\r\nrest")
    line = publish("me/model", "x/checkpoint-20", BLOCK, token="t", api=hub)
    assert line == "the results are in the card of https://hub/me/model"
    (given,) = hub.uploads
    assert hub.card == f"---\nlicense: mit\n---\n# mine\r\n{START}\r\nnew\r\n{END}\r\nrest"
    assert (given["repo_id"], given["path_in_repo"], given["parent_commit"]) == ("me/model", "README.md", "c0ffee")
    assert given["commit_message"] == "Evaluation results of x/checkpoint-20"
    assert "already" in publish("me/model", "x/checkpoint-20", BLOCK, token="t", api=hub)
    assert len(hub.uploads) == 1


def test_a_repository_without_a_card_gets_one(tmp_path: Path) -> None:
    hub: Any = Hub(tmp_path)
    publish("me/model", "x", BLOCK, token="t", api=hub)
    assert hub.card.endswith(f"# model\n\n{BLOCK}")


def test_a_card_that_cannot_be_fetched_is_not_replaced(tmp_path: Path) -> None:
    hub: Any = Hub(tmp_path)
    hub.missing = LocalEntryNotFoundError("no network")
    with pytest.raises(UserError, match=r"cannot be written \(no network\)"):
        publish("me/model", "x", BLOCK, token="t", api=hub)
    assert hub.uploads == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError("404", response=response(404)), "create it and upload the model first"),
        (HfHubHTTPError("403 Forbidden:\n no write", response=response(403)), r"\(403 Forbidden: no write\)"),
        (httpx.ConnectError("no route"), r"cannot be written \(no route\)"),
        (ConnectionError("reset"), r"cannot be written \(reset\)"),
    ],
)
def test_what_the_hub_refuses_is_one_line(tmp_path: Path, error: Exception, message: str) -> None:
    hub: Any = Hub(tmp_path, error=error)
    with pytest.raises(UserError, match=message) as caught:
        publish("me/model", "x", BLOCK, token="t", api=hub)
    assert "\n" not in str(caught.value)


def test_nobody_logged_in_and_no_name_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="nobody is logged in"):
        publish("me/model", "x", BLOCK)
    with pytest.raises(UserError, match="expected owner/name"):
        publish("me/my/model", "x", BLOCK, token="t")
