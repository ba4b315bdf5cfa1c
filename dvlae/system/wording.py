"""Numbers, times and names in messages."""

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


def minutes(seconds: float) -> str:
    """Write a time that is not known exactly.

    Parameters
    ----------
    seconds
        How long.

    Returns
    -------
    str
        The time in minutes.

    Examples
    --------
    >>> minutes(20), minutes(90), minutes(1234)
    ('less than a minute', '1.5 min', '21 min')
    """
    if seconds < 60:
        return "less than a minute"
    return f"{seconds / 60:.1f}".removesuffix(".0") + " min" if seconds < 600 else f"{seconds / 60:.0f} min"


def duration(seconds: float) -> str:
    """Write how long something took or takes.

    Parameters
    ----------
    seconds
        How long.

    Returns
    -------
    str
        The time in seconds, minutes or hours.

    Examples
    --------
    >>> duration(20), duration(90), duration(12345)
    ('20 s', '2 min', '3 h 26 min')
    """
    rounded = round(seconds / 60)
    if rounded < 1:
        return f"{seconds:.0f} s"
    return f"{rounded} min" if rounded < 60 else f"{rounded // 60} h {rounded % 60} min"


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
