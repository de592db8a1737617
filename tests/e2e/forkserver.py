# SPDX-License-Identifier: MIT
"""A Python that has imported chromadb, and forks a child for each program it is told to run.

    forkserver.py SOCKET    SOCKET is the descriptor of one end of a pair. A message is {"words":
                            what would come after "python", "env", "cwd"} as JSON, and brings the
                            child's standard input, output and error. The answers are the child's
                            pid and, when it has ended, its status (waitpid).

The import is most of what a short program costs, and the same each time. For programs without the
library only: with it a backend starts in a process of its own, as everywhere.
"""

import json
import os
import random
import runpy
import socket
import sys
import traceback
from typing import Optional

import chromadb  # noqa: F401
import numpy as np


def become(request: dict, descriptors: list[int]) -> None:
    """What a Python that has just been started with these words is."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    np.random.seed()


def execute(words: list[str]) -> None:
    if words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(words[0])
        runpy.run_path(words[0], run_name="__main__")


def has_threads() -> bool:
    """Of the import's (0.6 has some): at its end a child would wait for them, and has none."""
    return len(os.listdir("/proc/self/task")) > 1


def end(error: Optional[BaseException]) -> None:
    """As Python does it, but for what is waited for."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code != status and error.code is not None:
            print(error.code, file=sys.stderr)
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(server: socket.socket) -> list[str]:
    """Answers until nobody asks; in a child it gives the words to be executed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, 1 << 20, 3)
        if not message:
            sys.exit()
        request = json.loads(message)
        child = os.fork()
        if not child:
            become(request, descriptors)
            server.close()
            return request["words"]
        for descriptor in descriptors:
            os.close(descriptor)
        server.send(str(child).encode())
        server.send(str(os.waitpid(child, 0)[1]).encode())


if __name__ == "__main__":
    ends_at_once = has_threads()
    told = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        execute(told)
    finally:
        if ends_at_once:
            end(sys.exc_info()[1])
