"""How well the posterior standard deviation predicts the error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import Image
from dvlae.data.outputs.reading import read_output
from dvlae.evaluation.evaluate import read_estimate
from dvlae.evaluation.register import Targets
from dvlae.runs.folder import RunFolder

# 0.6827 and 0.9545 correspond to one and two standard deviations.
NOMINAL_COVERAGE = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.8, 0.9, 0.9545, 0.99])
# Each bin of the predicted deviation has the same number of pixel values.
DEVIATION_BINS = 12


@dataclass(frozen=True)
class Calibration:
    """Predicted and true errors of many pixel values.

    Attributes
    ----------
    coverage
        The fraction of true values in an interval around the estimate. It should be ``NOMINAL_COVERAGE`` if the errors
        are Gaussian with the predicted standard deviation.
    predicted, true
        Root mean square of the predicted standard deviations and of the errors, for bins of increasing prediction, in
        the units of the clean image.
    ratio
        Root mean square of all errors divided by that of all predicted deviations. It is 1 if the prediction is right,
        and larger if it is too low.
    """

    coverage: np.ndarray
    predicted: np.ndarray
    true: np.ndarray
    ratio: float


def calibrate(errors: np.ndarray, deviations: np.ndarray) -> Calibration:
    """Compare errors with the standard deviations that were predicted for them.

    Parameters
    ----------
    errors
        Estimate less true value, any shape.
    deviations
        Predicted standard deviations, of the same shape and in the same units.

    Returns
    -------
    Calibration
        The errors that were found at each predicted deviation.
    """
    errors, deviations = np.abs(errors, dtype=np.float64).ravel(), deviations.astype(np.float64).ravel()
    half_widths = ndtri(0.5 + NOMINAL_COVERAGE / 2)  # of the intervals, in standard deviations
    coverage = np.array([np.mean(errors <= half_width * deviations) for half_width in half_widths])
    order = np.array_split(np.argsort(deviations, kind="stable"), min(DEVIATION_BINS, deviations.size))
    predicted, true = (np.array([_rms(values[part]) for part in order]) for values in (deviations, errors))
    return Calibration(coverage, predicted, true, _rms(errors) / max(_rms(deviations), np.finfo(float).tiny))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def calibrate_run(folder: RunFolder, images: Sequence[Image], targets: Targets) -> Calibration | None:
    """Compare the deviations of one run with its errors, over all pixels that are evaluated.

    Parameters
    ----------
    folder
        Folder of the run, with ``denoised/`` and ``uncertainty/``.
    images
        The images to compare.
    targets
        What the estimates are compared with, after a fit of gain and offset if the dataset asks for it.

    Returns
    -------
    Calibration or None
        None if no image has both a clean one and a posterior standard deviation.
    """
    errors, deviations = [], []
    for image in images:
        deviation = None if image.clean is None else read_output(folder.uncertainty, image, deviation=True)
        if deviation is None:
            continue
        noisy = read_noisy(image)
        estimate = read_estimate(folder.denoised, image)
        target = targets.target(image, noisy)
        gain, _ = target.gain_and_offset(estimate)
        errors.append((target.to_target_units(estimate) - target.clean).ravel())
        deviations.append(abs(gain) * deviation[:, *target.region].ravel())
    return calibrate(np.concatenate(errors), np.concatenate(deviations)) if errors else None
