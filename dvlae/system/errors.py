"""The exception for a user's mistake, and the word that may have been meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct, which is shown in one line without a traceback.

    The text names the file or the key, what was found there, and what is allowed.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known word is meant, within a message.

    Parameters
    ----------
    word
        A word that is not known.
    known
        The words that are.

    Returns
    -------
    str
        For example ``"did you mean 'train'? "``; nothing if no word is near.
    """
    # Two of three letters are not much: 'gpu' is no mistyped 'cpu'.
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5 if len(word) > 3 else 0.7)
    return f"did you mean {near[0]!r}? " if near else ""
