"""Take a picture of the page that ``dvlae denoise`` writes: ``python docs/pictures/page.py MODEL FOLDER``.

The model and the electron micrographs are those of ``config/sem.yaml``, the latter in ``$DVLAE_DATA_MIRROR`` or
``data``. The folder keeps images and results. Chromium has to be installed.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile

from dvlae import cli

PICTURE = Path(__file__).parents[1] / "page.png"
WIDTH, HEIGHT = 1060, 1050


def main(model: Path, folder: Path) -> None:
    """Denoise five micrographs, and take the picture."""
    files = sorted((Path(os.environ.get("DVLAE_DATA_MIRROR", "data")) / "sem_line/noisy").glob("*.tif"))[::10]
    frames = np.stack([tifffile.imread(file)[2:440, 2:510, 0] for file in files])
    folder.mkdir(exist_ok=True)
    stack = folder / "stack.tif"
    if not stack.exists():
        tifffile.imwrite(stack, frames, imagej=True, metadata={"axes": "TYX"})
    if cli.main(["denoise", str(stack), "--model", str(model)]) != 0:
        sys.exit(1)
    page = folder / "stack_denoised.html"
    with TemporaryDirectory() as browser:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={browser}"]
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={PICTURE}"]
        subprocess.run(["chromium", *options, *size, page.resolve().as_uri()], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
