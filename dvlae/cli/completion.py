"""The completion of commands, options and paths in a shell."""

import shtab

from dvlae.cli.parser import make_parser


def completion(shell: str) -> str:
    """Write the script that a shell runs to complete the command line of ``dvlae``.

    Parameters
    ----------
    shell
        The shell, for example ``bash``.

    Returns
    -------
    str
        The script.
    """
    return shtab.complete(make_parser(shtab.FILE), shell)
