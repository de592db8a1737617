# SPDX-License-Identifier: MIT
"""Protected operations: recorded from begin to end, with a snapshot before them if wanted."""

import asyncio
import errno
import functools
import inspect
import os
import sys
import threading
from contextlib import ContextDecorator
from typing import Optional

from . import _command, _library
from ._command import ChromashimError

_said = set()
_said_lock = threading.Lock()


def say_once(key: str, text: str) -> None:
    with _said_lock:
        if key in _said:
            return
        _said.add(key)
    print(f"chromashim: {text}", file=sys.stderr, flush=True)


def _say_partial() -> None:
    why = ("nothing is protected in this process yet" if _library.loaded() else
           "libchromashim.so is not loaded in this process")
    say_once("partial", f"{why}: protection is partial. Snapshots are taken through the command; "
             "operations are not recorded, and writes are not guarded. Start the program with "
             "`chromashim run -- …`.")


class Operation:
    """An operation under way. `snapshot`: the number of the one before it, or None."""

    def __init__(self, name: str):
        self.name = name
        self.snapshot: Optional[int] = None
        self.error: Optional[str] = None  # why there is no snapshot
        self._token = 0

    def _begin(self, flags: int, directory) -> None:
        self._token = _library.begin(self.name, flags)
        if not self._token:
            _say_partial()
        if not flags:
            return
        directory = _command.directory_of(directory() if callable(directory) else directory)
        number = _library.snapshot(self._token, directory) if self._token else -errno.ENOENT
        if number > 0:
            self.snapshot = number
        elif number == -errno.ENOENT:  # not one that this process protects
            self._take(directory)
        elif number < 0:
            self.error = os.strerror(-number)

    def _take(self, directory: str) -> None:
        try:
            taken = _command.create_snapshot(directory, f"before {self.name}", verify=False)
            self.snapshot = taken["id"]
        except ChromashimError as error:
            self.error = str(error)

    def _end(self, outcome: int) -> None:
        if self._token:
            _library.end(self._token, outcome)
            self._token = 0


def _around_async_generator(operation, function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        async with operation._recreate_cm():
            inner = function(*args, **kwargs)
            try:
                item = await inner.asend(None)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        item = await inner.athrow(error)
                    else:
                        item = await inner.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await inner.aclose()

    return wrapper


def is_decorated(what) -> bool:
    """Whether it is a function that a decorator without parentheses is given, not a name."""
    return callable(what) or isinstance(what, (classmethod, staticmethod))


def decorated(operation, function):
    """`function` with the operation around each call: for a generator, around all of its life."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(decorated(operation, function.__func__))
    if not isinstance(function, (type, functools.partial)) and not inspect.isroutine(function):
        function = function.__call__  # of an object: whether it is async can be seen there
    if inspect.isasyncgenfunction(function):
        return _around_async_generator(operation, function)
    if inspect.iscoroutinefunction(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            async with operation._recreate_cm():
                return await function(*args, **kwargs)
    elif inspect.isgeneratorfunction(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            with operation._recreate_cm():
                return (yield from function(*args, **kwargs))
    else:
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            with operation._recreate_cm():
                return function(*args, **kwargs)
    return wrapper


class protected_operation(ContextDecorator):
    """Context manager and decorator, also of generators, async functions and async generators.

        with protected_operation("rebuild", snapshot=True) as operation: ...

        @protected_operation("rebuild", snapshot=True)
        def rebuild(): ...

    snapshot: True takes one first, unless one was taken in the last minute: then that one has to
    do, and is what `snapshot` names. "always" takes one in any case. Without one to be had the
    operation goes on, and that is said; require_snapshot=True takes one in any case, and raises
    ChromashimError instead of going on without. directory is only needed where the library is not loaded; it
    may be a function that gives it.
    """

    def __new__(cls, name="", *args, **kwargs):
        if is_decorated(name):  # without parentheses
            return cls(getattr(name, "__name__", "operation"))(name)
        return super().__new__(cls)

    def __init__(self, name: str, snapshot=False, directory=None, require_snapshot: bool = False):
        self.name = name
        self.directory = directory
        self.require_snapshot = require_snapshot
        self._flags = 0
        if snapshot or require_snapshot:
            self._flags = _library.SNAPSHOT
        if snapshot == "always" or require_snapshot:
            self._flags |= _library.SNAPSHOT_ALWAYS
        self._operation: Optional[Operation] = None

    def _recreate_cm(self):
        # A decorated function may run in many threads and call itself.
        again = object.__new__(type(self))
        again.__dict__ = {**self.__dict__, "_operation": None}
        return again

    def __call__(self, function):
        return decorated(self, function)

    def __enter__(self) -> Operation:
        operation = Operation(self.name)
        operation._begin(self._flags, self.directory)
        if self._flags and operation.snapshot is None:
            why = operation.error or "none was taken"
            if self.require_snapshot:
                operation._end(1)
                raise ChromashimError(f"no snapshot before '{self.name}': {why}")
            print(f"chromashim: no snapshot before '{self.name}': {why}", file=sys.stderr, flush=True)
        self._operation = operation
        return operation

    def __exit__(self, kind, value, trace) -> bool:
        self._operation._end(0 if kind is None else 1)
        return False

    # Begin may wait for a transaction to end: not in the event loop.
    async def __aenter__(self) -> Operation:
        return await asyncio.get_running_loop().run_in_executor(None, self.__enter__)

    async def __aexit__(self, kind, value, trace) -> bool:
        return self.__exit__(kind, value, trace)
