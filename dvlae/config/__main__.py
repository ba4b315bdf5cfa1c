"""``python -m dvlae.config`` prints ``config/README.md``.

With ``schema``, ``dataset-schema`` or ``method-schema`` it prints a JSON schema.
"""

import sys

from dvlae.config.dataset import DatasetSettings
from dvlae.config.methods import MethodSettings
from dvlae.config.reference import reference, schema
from dvlae.config.settings import Settings

PAGES = {
    (): reference,
    ("schema",): lambda: schema(Settings),
    ("dataset-schema",): lambda: schema(DatasetSettings),
    ("method-schema",): lambda: schema(MethodSettings),
}

if __name__ == "__main__":
    words = tuple(sys.argv[1:])
    if words not in PAGES:
        sys.exit("usage: python -m dvlae.config [schema | dataset-schema | method-schema]")
    print(PAGES[words](), end="")
