"""What is found odd in the images of a dataset."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something odd in the frames.

    Attributes
    ----------
    kind
        One word or two, for example ``"information bar"``.
    number
        How many, or how much.
    line
        What was found, and which key of the settings helps.
    """

    kind: str
    number: float
    line: str
