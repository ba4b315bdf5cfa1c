"""The exception for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can correct: shown as one line, without a traceback, with exit code 1.

    The text names the file or the key, what was found there, and what is allowed.
    """
