"""The one error a user is meant to read: what was given, what was expected, what to do."""


class UserError(ValueError):
    """A mistake in the input. The command line prints it in one line and exits with code 2."""
