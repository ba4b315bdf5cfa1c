"""Checks of settings, and what is wrong with them in words."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dvlae.config.yaml_files import read_yaml
from dvlae.system.errors import UserError

MAX_SHOWN_PROBLEMS = 20

S = TypeVar("S", bound=BaseModel)


def format_value(value: Any) -> str:
    """Write a value as YAML would, short.

    Parameters
    ----------
    value
        What was found in a file.

    Returns
    -------
    str
        One line of at most 80 characters.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def describe(schema: dict, definitions: dict) -> str:
    """Say in words what a JSON schema allows.

    Parameters
    ----------
    schema
        The schema of one value.
    definitions
        The schemas that ``$ref`` refers to, by name.

    Returns
    -------
    str
        For example ``a whole number >= 1 or null``.
    """
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        return " or ".join(describe(option, definitions) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema["type"]
    limits = [
        f"{sign} {schema[name]:g}"
        for name, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if name in schema
    ]
    if kind == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        length = "at least one" if most is None else f"{most}" if least == most else f"{least} to {most}"
        return f"a list of {length}: " + describe(schema["items"], definitions)
    if kind == "object":
        return "a block with the keys " + ", ".join(schema["properties"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "null",
    }
    return " ".join([words[kind], " and ".join(limits)]).strip()


def _schema_at(cls: type[BaseModel], path: Sequence) -> tuple[dict, dict]:
    """Return the JSON schema of the value at ``path``, and the definitions it refers to."""
    whole = cls.model_json_schema()
    definitions = whole.get("$defs", {})

    def step(options: list[dict], part: str | int) -> list[dict]:
        found = []
        for option in options:
            if "$ref" in option:
                option = definitions[option["$ref"].rsplit("/", 1)[1]]
            if "anyOf" in option:
                found += step(option["anyOf"], part)
            elif isinstance(part, int) and "items" in option:
                found.append(option["items"])
            elif part in option.get("properties", {}):
                found.append(option["properties"][part])
        return found

    options = [whole]
    for part in path:
        options = step(options, part)
    return (options[0] if len(options) == 1 else {"anyOf": options}), definitions


def _known_part(location: Sequence, data: Any) -> list:
    """Return as much of pydantic's location as is a path in the data; the rest names the branch of a union."""
    path = []
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(part)
    return path


def _value_at(path: Sequence, data: Any) -> Any:
    for part in path:
        data = data[part]
    return data


def _key(path: Sequence) -> str:
    """Write ``("crop", "y", 0)`` as ``crop.y[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _problem(cls: type[BaseModel], data: dict, error: ErrorDetails) -> tuple[tuple, str]:
    """Turn one of pydantic's errors into the path of a key and a sentence about it."""
    if error["type"] in ("extra_forbidden", "invalid_key"):  # a key that is no text cannot be known either
        path = tuple(part for part in error["loc"] if part != "[key]")
        schema, definitions = _schema_at(cls, path[:-1])
        keys = list(_block_schema(schema, definitions)["properties"])
        near = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return path, f"unknown key; {hint}allowed: {', '.join(keys)}"
    if error["type"] == "missing":
        path = tuple(error["loc"])
        return path, f"missing; it needs {describe(*_schema_at(cls, path))}"
    path = tuple(_known_part(error["loc"], data))
    if error["type"] == "value_error":
        return path, error["msg"].removeprefix("Value error, ")
    value = _value_at(path, data)
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        hint = f" (YAML takes this for text; write {float(value)!r})"
    return path, f"found {format_value(value)}, allowed: {describe(*_schema_at(cls, path))}{hint}"


def _block_schema(schema: dict, definitions: dict) -> dict:
    """Return the schema of a block out of ``block or null``."""
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            option = definitions[option["$ref"].rsplit("/", 1)[1]]
        if "properties" in option:
            return option
    raise AssertionError("unknown keys are found in blocks only")


def validate(cls: type[S], data: Any, where: str | Sequence[str]) -> S:
    """Check settings and fill in the defaults.

    Parameters
    ----------
    cls
        The settings' class, for example :class:`Settings`.
    data
        What was read from a file.
    where
        The file, or several files of which later ones were laid over earlier ones: each problem is then put down to
        the file that holds the key.

    Returns
    -------
    cls
        The checked settings.

    Raises
    ------
    UserError
        One line a problem: file, key, what was found, what is allowed.
    """
    files = [where] if isinstance(where, str) else list(where)
    if not isinstance(data, dict):
        raise UserError(f"{files[-1]}: found {format_value(data)}, allowed: the keys {', '.join(_properties(cls))}")
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        # One problem a key: a union has several.
        problems = dict(_problem(cls, data, item) for item in errors[:MAX_SHOWN_PROBLEMS])
    lines = []
    for path, text in problems.items():
        file = files[0] if len(files) == 1 else locate(path, files)
        lines.append(": ".join(filter(None, [file, _key(path), text])))
    if len(errors) > MAX_SHOWN_PROBLEMS:
        lines.append(f"{files[-1]}: and {len(errors) - MAX_SHOWN_PROBLEMS} problems more")
    raise UserError("\n".join(lines))


def _properties(cls: type[BaseModel]) -> dict:
    return cls.model_json_schema()["properties"]


def locate(key_path: Sequence, files: Sequence[str]) -> str:
    """Find which of several configuration files holds a key.

    Parameters
    ----------
    key_path
        The path of the key, for example ``("training", "patch_size")``.
    files
        The files; later ones are laid over earlier ones.

    Returns
    -------
    str
        The last file that has the key, or as much of its path as any has; the last file where none has any of it.
    """
    found = [len(_known_part(key_path, read_yaml(file))) for file in files]
    return max(zip(found, range(len(files)), files, strict=True))[2]
