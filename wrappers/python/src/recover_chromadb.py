# SPDX-License-Identifier: MIT
"""`python -m recover_chromadb`: see chromashim.recovery."""

import sys

from chromashim.recovery import *  # noqa: F401,F403
from chromashim.recovery import main

if __name__ == "__main__":
    sys.exit(main())
