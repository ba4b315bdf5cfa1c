"""The reference page and the JSON schemas of all settings, made from the descriptions of the settings."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dvlae.config.dataset import DatasetSettings
from dvlae.config.messages import describe
from dvlae.config.methods import MethodSettings
from dvlae.config.settings import Settings
from dvlae.config.sizes.receptive_field import reachable

INTRODUCTION = """\
# Configuration

This page is made by `python -m dvlae.config > config/README.md`.

A **configuration** defines what to compute: the datasets, methods and seeds, the size of the network, and the length of
the training. `config/config.yaml` is always read. Override it with a file that contains only the keys that
differ:

```
snakemake --cores all --configfile mine.yaml
```

Lists are replaced completely. Give each configuration its own `results:`, so that it does not overwrite another one.
`--config 'seeds=[0, 1]'` overrides single keys of all files, for `snakemake` and for `dvlae status`.

| file | purpose |
|---|---|
| `config.yaml` | the default: offline, on a laptop, in a quarter of an hour |
| `sem.yaml` | real electron microscopy, ten minutes of training on two cores |
| `sem_gpu.yaml` | the same with a large model, for a GPU |
| `paper.yaml`, `paper_night.yaml` | the paper's grid: for days, and in one night with smaller networks, on a GPU |
| `fair_sem.yaml`, and others with `fair_` | many methods with the same time (`benchmarks/fair.py`) |

A **dataset** is one file in `config/datasets/`. To use your own images, add a file:

```yaml
# config/datasets/mine.yaml
source: {kind: files}
noisy: /home/me/scans/*.tif   # or relative to the data folder
noise_direction: x            # correlated along rows; if unsure, look at figures/noise_*.png afterwards
```

Then add its name to the configuration: `datasets: [mine]`. Three keys are required: `source`, `noisy` and
`noise_direction`. Without `clean`, the results contain everything except the PSNR.

A **method** is one file in `config/methods/`, or `dvlae-rfN` for our own with a receptive field of N pixels. Those of
dvlae need no file of yours: `methods: [dvlae-rf4, gaussian, bm3d]`. To add one, write a file
([how](../docs/extend.md#add-a-method)):

```yaml
# config/methods/mine.yaml
description: my own filter
command: "{python} {here}/mine.py {noisy} {denoised}"
```

A method file is code, as its command is run: take one only from where you would take a program. It is read from
`config/methods/`, or from a path that the configuration names.

An unknown key, or a value of a wrong type or out of range, ends the run before it starts, with one line that names the
file, the key, what was found and what is allowed. Numbers with an exponent need a point: `2.0e-3`.
If a setting changes, only the steps that depend on it run again.
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
    blocks.append(f"Possible receptive fields: {', '.join(map(str, reachable()))} pixels.\n")
    blocks.append(_section("A dataset: `config/datasets/NAME.yaml`", "", DatasetSettings))
    blocks.append(_section("A method: `config/methods/NAME.yaml`", "", MethodSettings))
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
        The content of ``schema.json`` in ``config/``, ``config/datasets/`` or ``config/methods/``.
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
            what = "a list of blocks" if properties[name].get("type") == "array" else "a block"
            allowed = f"{what}, see below" + (" or null" if "null" in allowed.split(" or ") else "")
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
