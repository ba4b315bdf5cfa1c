"""Reading of YAML files that may be wrong or malicious: no key twice, a limited number of values."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from dvlae.config.fields import expand_home
from dvlae.system.errors import UserError

# The limit for the characters of a file, and for its values.
MAX_CHARACTERS = 2**18


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key that is given twice."""

    def construct_mapping(self, node, deep=False):
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            keys.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML or JSON file; an empty file is an empty dictionary.

    Parameters
    ----------
    path
        Where the file is, which error messages begin with.

    Returns
    -------
    Any
        The content of the file, which should be a dictionary.

    Raises
    ------
    UserError
        If the file is missing, cannot be read, or is not YAML.
    """
    try:
        # Some editors write a byte order mark.
        with open(expand_home(path), encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"more than {MAX_CHARACTERS} characters")
        data = yaml.load(text, Loader=_Loader)
        count_values(data, {})
    except OSError as error:
        raise UserError(f"{path}: {str(error.strerror).lower()}") from None
    # A ValueError is raised for example by 2024-13-32 or a number of 5000 digits.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise UserError(f"{path}: not YAML{place}: {problem}") from None
    return {} if data is None else data


def read_given(words: Iterable[str]) -> dict[str, Any]:
    """Read keys and values as ``snakemake --config`` does.

    Parameters
    ----------
    words
        Each is ``KEY=VALUE``, where the value is YAML.

    Returns
    -------
    dict
        The values by their keys.

    Raises
    ------
    UserError
        If a word has no key, or a value is not YAML.

    Examples
    --------
    >>> read_given(["seeds=[0, 1]", "training={max_minutes: 2.5}"])
    {'seeds': [0, 1], 'training': {'max_minutes': 2.5}}
    """
    given = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise UserError(f"--config: found {word!r}, allowed: KEY=VALUE, such as 'seeds=[0, 1]'")
        try:
            # Dates, for example, stay text.
            data = yaml.load(text, Loader=yaml.BaseLoader)
            count_values(data, {})
            given[key] = typed(data)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UserError(
                f"--config: {key}: found {text!r}, allowed: YAML in quotes, such as 'seeds=[0, 1]'"
            ) from None
    return given


def typed(value: Any) -> Any:
    """Give values of ``snakemake --config`` the types that they would have in a file.

    Snakemake leaves numbers in lists and blocks as text: ``--config 'seeds=[0, 1]'``.

    Parameters
    ----------
    value
        Text, a list, a dictionary, or a value that has its type already.

    Returns
    -------
    Any
        The same, with numbers, true, false and null in the place of their text.

    Examples
    --------
    >>> typed({"seeds": ["0", "1"], "training": {"max_minutes": "2.5", "schedule": "cosine"}})
    {'seeds': [0, 1], 'training': {'max_minutes': 2.5, 'schedule': 'cosine'}}
    """
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    if not isinstance(value, str):
        return value
    try:
        found = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value
    return found if found is None or isinstance(found, (bool, int, float)) else value


def count_values(data: Any, counted: dict[int, int]) -> int:
    """Count the values in settings with all references expanded; refuse too many, and text that is not valid.

    A few lines of YAML, each of which refers twice to the line before, can expand to more values than fit into memory.

    Parameters
    ----------
    data
        The content of a file.
    counted
        The counts of the lists and dictionaries so far, by their ids; changed in place.

    Returns
    -------
    int
        The number of values; a list or a dictionary itself counts as one.
    """
    if isinstance(data, str):
        if "\0" in data or (not data.isascii() and _is_surrogate(data)):
            raise ValueError(f"the text {data!r} holds a NUL or half a character")
        return 1
    if not isinstance(data, dict | list):
        return 1
    if id(data) not in counted:
        # This refuses data that contain themselves.
        counted[id(data)] = MAX_CHARACTERS + 1
        children = [*data, *data.values()] if isinstance(data, dict) else data
        counted[id(data)] = 1 + sum(count_values(child, counted) for child in children)
    if counted[id(data)] > MAX_CHARACTERS:
        raise ValueError("its references stand for too many values")
    return counted[id(data)]


def _is_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
