"""The division of a dataset among jobs, and of a batch among workers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from dvlae.system.errors import UserError

Item = TypeVar("Item")


def share(total: int, number: int, count: int) -> range:
    """Return which of ``total`` things belong to one of several parts. The sizes of the parts differ by at most one.

    Parameters
    ----------
    total
        Number of things.
    number
        Number of the part, from 0.
    count
        Number of parts.

    Returns
    -------
    range
        The numbers of consecutive things. It is empty for some parts if there are more parts than things.
    """
    return range(number * total // count, (number + 1) * total // count)


@dataclass(frozen=True)
class Part:
    """One of the parts into which the images of a dataset are divided.

    Attributes
    ----------
    number
        Number of the part, from 1 to ``count``.
    count
        Number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read a part from text.

        Parameters
        ----------
        text
            For example ``2/4``, or ``2-of-4`` as Snakemake writes it.

        Returns
        -------
        Part
            The part.

        Raises
        ------
        UserError
            If the text has another form, or there is no such part.
        """
        found = re.fullmatch(r"(\d+)(?:/|-of-)(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part: found {text!r}, allowed: K/N, with K from 1 to N")
        return cls(int(found[1]), int(found[2]))

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this part.

        Parameters
        ----------
        items
            The items of all parts, in order.

        Returns
        -------
        list
            As :func:`share`.
        """
        return [items[index] for index in share(len(items), self.number - 1, self.count)]

    def record(self) -> dict[str, str]:
        """Describe the part in the record of a step.

        Returns
        -------
        dict
            ``part``, for example ``2/4``. It is empty for a whole dataset.
        """
        return {} if self == WHOLE else {"part": f"{self.number}/{self.count}"}


# The only part of a dataset that is not divided.
WHOLE = Part(1, 1)
