"""Validation of settings, with error messages that name the file, the key, what was found and what is allowed."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dvlae.config.yaml_files import read_yaml
from dvlae.system.errors import UserError, did_you_mean

MAX_SHOWN_PROBLEMS = 20

S = TypeVar("S", bound=BaseModel)


def format_value(value: Any) -> str:
    """Write a value as in YAML, shortened.

    Parameters
    ----------
    value
        A value from a file.

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
    """Describe in words what a JSON schema allows.

    Parameters
    ----------
    schema
        The schema of one value.
    definitions
        The schemas to which ``$ref`` refers, by name.

    Returns
    -------
    str
        For example ``a whole number >= 1 or null``.
    """
    alternatives = _alternatives(schema, definitions)
    if len(alternatives) > 1:
        return " or ".join(describe(option, definitions) for option in alternatives)
    schema = alternatives[0]
    if "enum" in schema:
        return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "type" not in schema:
        return "any value"
    kind = schema["type"]
    limits = [
        f"{sign} {schema[name]:.10g}"
        for name, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if name in schema
    ]
    if kind == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        if most is None:
            length = " of at least one" if least else ""
        else:
            length = f" of {most}" if least == most else f" of {least} to {most}" if least else f" of at most {most}"
        return f"a list{length}: " + describe(schema["items"], definitions)
    if "additionalProperties" in schema and "properties" not in schema:
        return "names, each with " + describe(schema["additionalProperties"], definitions)
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


def _alternatives(schema: dict, definitions: dict) -> list[dict]:
    """Return the schemas of which a value has to fulfil one, without references."""
    if "$ref" in schema:
        return _alternatives(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        return [found for option in schema["anyOf"] for found in _alternatives(option, definitions)]
    return [schema]


def _schema_at(cls: type[BaseModel], path: Sequence) -> tuple[dict, dict]:
    """Return the JSON schema of the value at ``path``, and the definitions that it refers to."""
    schema = cls.model_json_schema()
    definitions = schema.get("$defs", {})
    for part in path:
        found = _alternatives(schema, definitions)
        inner = [each["items"] for each in found if isinstance(part, int) and "items" in each]
        inner += [each["properties"][part] for each in found if part in each.get("properties", {})]
        inner += [each["additionalProperties"] for each in found if isinstance(each.get("additionalProperties"), dict)]
        schema = inner[0] if len(inner) == 1 else {"anyOf": inner}
    return schema, definitions


def _follow(location: Sequence, data: Any) -> tuple[tuple, Any]:
    """Return the part of pydantic's location that is a path in the data, and the value there.

    The rest of a location names the branch of a union.
    """
    for known, part in enumerate(location):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return tuple(location[:known]), data
    return tuple(location), data


def _key(path: Sequence) -> str:
    """Write ``("crop", "y", 0)`` as ``crop.y[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _problem(cls: type[BaseModel], data: dict, error: ErrorDetails, others: Collection[str]) -> tuple[tuple, str]:
    """Turn one of pydantic's errors into the path of a key and a sentence about it."""
    # An invalid key is one that is not text.
    if error["type"] in ("extra_forbidden", "invalid_key"):
        path = tuple(part for part in error["loc"] if part != "[key]")
        block = next(option for option in _alternatives(*_schema_at(cls, path[:-1])) if "properties" in option)
        keys = list(dict.fromkeys([*block["properties"], *(others if len(path) == 1 else ())]))
        return path, f"unknown key; {did_you_mean(str(path[-1]), keys)}allowed: {', '.join(keys)}"
    if error["type"] == "missing":
        path = tuple(error["loc"])
        return path, f"missing; it needs {describe(*_schema_at(cls, path))}"
    path, value = _follow(error["loc"], data)
    if error["type"] == "value_error":
        return path, error["msg"].removeprefix("Value error, ")
    schema, definitions = _schema_at(cls, path)
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        hint = f" (YAML takes this for text; write {float(value)!r})"
    elif isinstance(value, str):
        words = [word for option in _alternatives(schema, definitions) for word in option.get("enum", ())]
        near = did_you_mean(value, (word for word in words if isinstance(word, str)))
        hint = f" ({near.rstrip()})" if near else ""
    return path, f"found {format_value(value)}, allowed: {describe(schema, definitions)}{hint}"


def validate(
    cls: type[S],
    data: Any,
    where: str | Sequence[str],
    others: Collection[str] = (),
    given: Mapping[str, Any] | None = None,
) -> S:
    """Check settings and fill in the defaults.

    Parameters
    ----------
    cls
        The settings' class, for example :class:`Settings`.
    data
        The content of a file.
    where
        The file, or several files, each of which overrides the ones before it. A message names the file that contains
        the key.
    others
        Keys that may be there for others, and are left out.
    given
        The part of ``data`` that overrides the files: that of ``snakemake --config``.

    Returns
    -------
    cls
        The checked settings.

    Raises
    ------
    UserError
        If a setting is wrong. There is one line per problem.
    """
    files = [where] if isinstance(where, str) else list(where)
    if not isinstance(data, dict):
        raise UserError(f"{files[-1]}: found {format_value(data)}, allowed: the keys {', '.join(cls.model_fields)}")
    data = {key: value for key, value in data.items() if key in cls.model_fields or key not in others}
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        # A union has several errors for one key; only one is shown.
        problems = dict(_problem(cls, data, item, others) for item in errors[:MAX_SHOWN_PROBLEMS])
    lines = []
    for path, text in problems.items():
        file = files[0] if len(files) == 1 and not given else locate(path, files, given)
        lines.append(": ".join(filter(None, [file, _key(path), text])))
    if len(errors) > MAX_SHOWN_PROBLEMS:
        lines.append(f"{files[-1]}: and {len(errors) - MAX_SHOWN_PROBLEMS} problems more")
    raise UserError("\n".join(lines))


def locate(key_path: Sequence, files: Sequence[str], given: Mapping[str, Any] | None = None) -> str:
    """Find the configuration file that contains a key.

    Parameters
    ----------
    key_path
        The path of the key, for example ``("training", "patch_size")``.
    files
        The files, each of which overrides the ones before it.
    given
        What overrides them all, if anything does.

    Returns
    -------
    str
        The last of the files that contain the longest part of the key's path, or ``--config``.
    """
    sources = [(file, read_yaml(file)) for file in files] + [("--config", given)] * bool(given)
    found = [len(_follow(key_path, data)[0]) for _, data in sources]
    return max(zip(found, range(len(sources)), sources, strict=True))[2][0]
