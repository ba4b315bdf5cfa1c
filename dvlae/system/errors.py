"""The exception for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can correct, which is shown in one line without a traceback.

    The text names the file or the key, what was found there, and what is allowed.
    """
