"""The code of the paper's authors of October 2023, from a folder of its files (`dvlae_2023.csv` of the mirror)."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace

MODULES = {"LadderVAE": "lvae.models.lvae", "PixelCNN": "noise_model.pixelcnn", "SDecoder": "s_decoder"}


def load_authors_code(folder: Path) -> SimpleNamespace:
    """Return the classes of their code."""
    import pytorch_lightning  # noqa: F401 (before the stand-in, which is not enough for it)

    # They import torchvision for pictures only.
    sys.modules.setdefault("torchvision", types.ModuleType("torchvision")).transforms = None  # type: ignore[attr-defined]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    classes = {name: getattr(importlib.import_module(module), name) for name, module in MODULES.items()}
    # Their dvlae.py has the name of our package, so it comes from its file.
    spec = importlib.util.spec_from_file_location("authors_dvlae", folder / "dvlae.py")
    assert spec is not None and spec.loader is not None
    whole = sys.modules["authors_dvlae"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(whole)
    return SimpleNamespace(**classes, DVLAE=whole.DVLAE)
