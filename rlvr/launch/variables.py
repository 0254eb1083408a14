"""Numbers that a launcher leaves in the environment."""

from collections.abc import Mapping

from rlvr.errors import UserError


def whole(environment: Mapping[str, str], name: str, default: int = 0) -> int:
    """A variable as a whole number; the default where it is not set or empty.

    Raises:
        UserError: for anything else.
    """
    given = environment.get(name) or str(default)
    try:
        return int(given)
    except ValueError:
        raise UserError(
            f"{name} is {given!r}; expected a whole number, as torchrun and srun set it: unset it, or start with one "
            "of them"
        ) from None
