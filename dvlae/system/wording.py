"""Numbers and names in messages."""

from collections.abc import Iterable

MAX_NAMES = 5


def count(number: int, noun: str) -> str:
    """Write a number of things.

    Parameters
    ----------
    number
        How many.
    noun
        What one of them is called.

    Returns
    -------
    str
        The number, and the noun in the singular or the plural.

    Examples
    --------
    >>> count(1, "image"), count(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def list_names(names: Iterable[str]) -> str:
    """Write names for a message, each once, and the first ones if there are many.

    Parameters
    ----------
    names
        At least one name.

    Returns
    -------
    str
        The names, separated by commas.

    Examples
    --------
    >>> list_names(["a", "b", "a"])
    'a, b'
    >>> list_names([str(number) for number in range(9)])
    '0, 1, 2, 3, 4 and 4 more'
    """
    different = list(dict.fromkeys(names))
    shown = ", ".join(different[:MAX_NAMES])
    return shown if len(different) <= MAX_NAMES else f"{shown} and {len(different) - MAX_NAMES} more"
