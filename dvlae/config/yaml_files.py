"""YAML files, read with care: no key twice, no more values than settings can hold."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from dvlae.system.errors import UserError

# A file of settings may have this many characters, and as many values.
MAX_CHARACTERS = 2**18


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error."""

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
        What the file holds: a dictionary, in a file that is right.

    Raises
    ------
    UserError
        Where the file is missing, cannot be read, or is not YAML.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
        _check_size(text)
        data = yaml.load(text, Loader=_Loader)
        count_values(data, {})
    except OSError as error:
        raise UserError(f"{path}: {str(error.strerror).lower()}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2024-13-32, a number of 5000 digits
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise UserError(f"{path}: not YAML{place}: {problem}") from None
    return {} if data is None else data


def _check_size(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"more than {MAX_CHARACTERS} characters")


def count_values(data: Any, counted: dict[int, int]) -> int:
    """Count the values in settings as they would be written out; refuse what no settings hold.

    A few lines of YAML in which each refers to the line before twice can stand for more values than memory holds.

    Parameters
    ----------
    data
        What a file holds.
    counted
        The counts of the lists and dictionaries that were met already, by their ids; changed in place.

    Returns
    -------
    int
        The number of values; a list or a dictionary is one more.
    """
    if isinstance(data, str):
        if "\0" in data or (not data.isascii() and _is_surrogate(data)):
            raise ValueError(f"the text {data!r} holds a NUL or half a character")
        return 1
    if not isinstance(data, dict | list):
        return 1
    if id(data) not in counted:
        counted[id(data)] = MAX_CHARACTERS + 1  # so much, should it be within itself
        children = [*data, *data.values()] if isinstance(data, dict) else data
        counted[id(data)] = 1 + sum(count_values(child, counted) for child in children)
    if counted[id(data)] > MAX_CHARACTERS:
        raise ValueError("its references stand for too many values")
    return counted[id(data)]


def _is_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
