"""`push_to_hub`: the block of results in the card of a model repository."""

from pathlib import Path
from typing import TYPE_CHECKING

from rlvr.errors import UserError
from rlvr.evaluation.card import insert_block, new_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def publish(repo_id: str, checkpoint: str, block: str, *, token: str | None = None, api: "HfApi | None" = None) -> str:
    """Put the block into the card of a model repository of the hub; the rest of the card stays.

    The card is read at a commit and written onto that commit, so a change that somebody makes in between is not lost.

    Args:
        repo_id: `owner/name` of a model repository that exists.
        checkpoint: label, for the message of the commit.
        block: of `rlvr.evaluation.card.model_card_block`.
        token: of the hub; None for the stored one.
        api: the hub; None for the real one.

    Returns:
        A line for people: what was done, and where to see it.

    Raises:
        UserError: without a token, a network, the repository or the right to write to it.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    if token is None and get_token() is None:
        raise UserError(f"push_to_hub={repo_id}: nobody is logged in; run `hf auth login`, or set HF_TOKEN")
    api = api or HfApi(token=token)
    try:
        return _update(api, repo_id, checkpoint, block)
    except RepositoryNotFoundError:
        raise UserError(
            f"push_to_hub={repo_id} is no model repository that this token sees; create it and upload the model first"
        ) from None
    except HFValidationError:
        raise UserError(f"push_to_hub={repo_id} is no name of a repository; expected owner/name") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"push_to_hub={repo_id}: the card cannot be written ({reason}); the results are in the ledger: mend it and "
            "run the command again"
        ) from None


def _update(api: "HfApi", repo_id: str, checkpoint: str, block: str) -> str:
    commit = api.model_info(repo_id).sha
    old = _card(api, repo_id, commit)
    new = new_card(repo_id.rsplit("/", 1)[-1], block) if old is None else insert_block(old, block)
    url = f"{api.endpoint}/{repo_id}"
    if new == old:
        return f"the card of {url} has these results already"
    api.upload_file(
        path_or_fileobj=new.encode(), path_in_repo="README.md", repo_id=repo_id, repo_type="model",
        parent_commit=commit, commit_message=f"Evaluation results of {checkpoint}",
    )  # fmt: skip
    return f"the results are in the card of {url}"


def _card(api: "HfApi", repo_id: str, commit: str | None) -> str | None:
    """The card at a commit; None where the repository has none."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return Path(api.hf_hub_download(repo_id, "README.md", revision=commit)).read_bytes().decode("utf-8")
    except RemoteEntryNotFoundError:  # not its base class: a file that could not be fetched may well exist
        return None
    except UnicodeDecodeError:
        raise UserError(f"push_to_hub={repo_id}: its README.md is not in UTF-8; mend it first") from None
