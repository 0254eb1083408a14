"""Ranks that succeed or fail together: what one of them cannot do ends the step on all, instead of a wait for it."""

from collections.abc import Callable
from typing import Any, TypeVar

from rlvr.errors import UserError
from rlvr.launch.status import Disagreement

Result = TypeVar("Result")


def _group() -> Any:
    """`torch.distributed` where there are other ranks, else None."""
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 else None


def is_lead() -> bool:
    """Whether this is the rank that writes for all."""
    dist = _group()
    return dist is None or bool(dist.get_rank() == 0)


def everywhere(value: Result) -> list[Result]:
    """The value of every rank, in rank order; called by all together."""
    dist = _group()
    if dist is None:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def together(action: Callable[[], Result]) -> Result:
    """Do something on this rank, and wait for the others; called by all together.

    Raises:
        Disagreement: where another rank raised a `UserError`, with its message.
        RuntimeError: where another rank raised something else; so the reason of a full disk is still in the text.
    """
    result, failure = None, None
    try:
        result = action()
    except Exception as error:
        failure = error
    said = everywhere(None if failure is None else (isinstance(failure, UserError), f"{failure}"))
    if failure is not None:
        raise failure
    for rank, found in enumerate(said):
        if found is not None:
            known, message = found
            raise Disagreement(message) if known else RuntimeError(f"rank {rank} failed: {message}")
    return result  # type: ignore[return-value]


def from_lead(action: Callable[[], Result]) -> Result:
    """What the lead's action gives, on every rank; only the lead does it, and its errors are raised everywhere."""
    result = together(lambda: action() if is_lead() else None)
    return everywhere(result)[0]  # type: ignore[return-value]
