"""The reference page and the JSON schemas of all settings, made from the descriptions of the settings."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dvlae.config.dataset import DatasetSettings
from dvlae.config.messages import describe
from dvlae.config.receptive_field import reachable
from dvlae.config.settings import Settings

INTRODUCTION = """\
# Configuration

This page is made by `python -m dvlae.config > config/README.md`.

A **configuration** says what to compute: which datasets, receptive fields and seeds, and how large and how long.
`config/config.yaml` is always read. Lay a file of your own over it, with only the keys that differ:

```
snakemake --cores all --configfile mine.yaml
```

Lists are replaced as a whole. Give each configuration its own `results:`, so that one does not overwrite another.
Put numbers into a file rather than into `--config`, which makes text of them.

| file | what it is for |
|---|---|
| `config.yaml` | the default: offline, on a laptop, in a quarter of an hour |
| `sem.yaml` | real electron microscopy, ten minutes of training on two cores |
| `sem_gpu.yaml` | the same with a large model, for a GPU |

A **dataset** is one file in `config/datasets/`. To use your own images, add a file:

```yaml
# config/datasets/mine.yaml
source: {kind: files}
noisy: /home/me/scans/*.tif   # or relative to the data folder
axes: YX
noise_direction: x            # correlated along rows; if unsure, look at figures/noise_*.png afterwards
```

and name it: `datasets: [mine]`. Four keys are required: `source`, `noisy`, `axes` and `noise_direction`. Without
`clean` there is no PSNR, but everything else.

A key that does not exist, a value of another type or out of its range ends the run before it starts, with one line that
names the file, the key, what was found and what is allowed. Numbers with an exponent need a point: `2.0e-3`.
A change of a setting reruns the steps that depend on it, and no others.
"""


def reference() -> str:
    """Return the page of all settings, in Markdown.

    Returns
    -------
    str
        The text of ``config/README.md``.
    """
    blocks = [INTRODUCTION]
    blocks.append(_section("The configuration: `config/config.yaml`", "", Settings))
    blocks.append(f"Receptive fields that can be had: {', '.join(map(str, reachable()))} pixels.\n")
    blocks.append(_section("A dataset: `config/datasets/NAME.yaml`", "", DatasetSettings))
    return "\n".join(blocks)


def schema(cls: type[BaseModel]) -> str:
    """Return the JSON schema with which an editor completes and checks the keys of a file.

    Parameters
    ----------
    cls
        The class of the settings in the file.

    Returns
    -------
    str
        The content of ``config/schema.json`` or ``config/datasets/schema.json``.
    """
    return json.dumps(cls.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(title: str, key: str, cls: type[BaseModel], level: int = 2) -> str:
    """Return a heading, a table of the keys of a block, and the sections of the blocks in it."""
    definitions = cls.model_json_schema().get("$defs", {})
    properties = cls.model_json_schema()["properties"]
    lines = [f"{'#' * level} {title}", "", "| key | allowed | default | meaning |", "|---|---|---|---|"]
    inner = []
    for name, field in cls.model_fields.items():
        block = _block(field.annotation)
        allowed = describe(properties[name], definitions)
        if block is not None:
            allowed = "a block, see below" + (" or null" if "null" in allowed.split(" or ") else "")
            inner.append(_section(f"`{key}{name}:`", f"{key}{name}.", block, level=3))
        lines.append(f"| `{name}` | {allowed} | {_default(field)} | {field.description} |")
    return "\n".join([*lines, "", *inner])


def _block(annotation: Any) -> type[BaseModel] | None:
    """Return the class of a block from ``Block`` or ``Block | None``."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**required**"
    if isinstance(field.default, BaseModel):
        return ""
    if isinstance(field.default, str):
        return f"`{field.default}`"
    return f"`{json.dumps(field.default)}`"
