"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, without a traceback, exit code 1.

    The text names the file or the key, what was found there, and what would be right.
    """
