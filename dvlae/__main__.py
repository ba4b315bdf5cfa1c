"""Lets ``python -m dvlae`` do what ``dvlae`` does."""

import sys

from dvlae.cli import main

sys.exit(main())
