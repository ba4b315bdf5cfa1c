"""The GPUs of this machine, found without PyTorch, whose import would slow down every plan."""

import os
import platform
import re
from pathlib import Path

VISIBLE_VARIABLES = ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"]
NVIDIA_DEVICE = re.compile(r"nvidia\d+")
AMD_COMPUTE_DRIVER, AMD_DEVICE = "kfd", re.compile(r"renderD\d+")


def count_gpus(devices: Path = Path("/dev")) -> int:
    """Return the number of GPUs that this process may use.

    Parameters
    ----------
    devices
        The folder of the device files.

    Returns
    -------
    int
        What the environment variables of CUDA and ROCm leave visible of the NVIDIA or AMD GPUs; 1 on an
        Apple processor.
    """
    if platform.system() == "Darwin":
        return int(platform.machine() == "arm64")
    count = count_files(devices, NVIDIA_DEVICE)
    if not count and (devices / AMD_COMPUTE_DRIVER).exists():
        count = count_files(devices / "dri", AMD_DEVICE)
    for variable in VISIBLE_VARIABLES:
        visible = os.environ.get(variable)
        if visible is not None:
            # The runtimes ignore everything from the first index that is negative.
            kept = visible.split(",-", maxsplit=1)[0]
            count = min(count, 0 if kept.startswith("-") else len([name for name in kept.split(",") if name.strip()]))
    return count


def count_files(folder: Path, name: re.Pattern[str]) -> int:
    """Count the files of a folder whose complete name matches.

    Parameters
    ----------
    folder
        The folder, which need not exist.
    name
        Pattern of the names.

    Returns
    -------
    int
        The number.
    """
    return sum(name.fullmatch(file.name) is not None for file in folder.iterdir()) if folder.is_dir() else 0
