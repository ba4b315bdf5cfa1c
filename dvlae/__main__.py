"""The command line as ``python -m dvlae``."""

import sys

from dvlae.cli import main

sys.exit(main())
