"""`python -m cspctl`: the same program as the `cspctl` script."""

import sys

from cspctl.main import main

sys.exit(main())
