"""The command line (first lines; the commands follow)."""


def main(argv=None) -> int:
    """Run one command."""
    return 0
