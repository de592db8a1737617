# SPDX-License-Identifier: MIT
"""The inside of an Actor: runs what comes in by lines, and answers each."""

import json
import os
import sqlite3
import sys
import time
from pathlib import Path

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
space = {"os": os, "sqlite3": sqlite3, "sys": sys, "time": time, "Path": Path}
for line in sys.stdin:
    space["result"] = None
    try:
        exec(json.loads(line), space)
        answer = [True, space["result"]]
    except BaseException as e:
        answer = [False, f"{type(e).__name__}: {e}"]
    out.write(json.dumps(answer) + "\n")
    out.flush()
