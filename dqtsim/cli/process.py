"""The command as a process: what its streams can show, and what its exit code says.

0: same; 1: wrong bits; 2: wrong use. 1 says nothing else, though Python and click end with it whatever goes wrong. So
an interruption is 130 and a closed pipe 141, as shells say it of a process that the signal ended, and a fault of dqtsim
itself, which is shown with its traceback, is 70.
"""

import codecs
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO

import click

from ..errors import DqtsimError, reason

WRONG_USE, FAULT = 2, 70
# 128 and the number of SIGINT and of SIGPIPE
INTERRUPTED, PIPE_CLOSED = 130, 141


class ErrorGroup(click.Group):
    """Turns the errors that a user can correct into one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DqtsimError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(WRONG_USE)


class Program(ErrorGroup):
    """The whole command line."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the words of the command line, and end the process unless `standalone_mode` is off."""
        if not standalone_mode:
            return self._main(*args, **extra)
        sys.stdout, sys.stderr = _Stream.over(sys.stdout), _Stream.over(sys.stderr)
        code = 0
        try:
            code = self._code(*args, **extra)
            # flushes
            click.echo(nl=False)
        except _StreamError as error:
            lost = _lost(error.cause)
            code = code or lost
        sys.exit(code)

    def _main(self, *args: Any, **extra: Any) -> Any:
        # typed, `main` has overloads that a subclass cannot pass its words on to
        command: Any = super()
        return command.main(*args, standalone_mode=False, **extra)

    def _code(self, *args: Any, **extra: Any) -> int:
        """Run the words; return the exit code. Raises _StreamError."""
        try:
            code = self._main(*args, **extra)
        except SystemExit as wanted:
            code = wanted.code
        except click.ClickException as error:
            error.show()
            code = WRONG_USE
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except _StreamError:
            raise
        except Exception:
            traceback.print_exc()
            code = FAULT
        return code if isinstance(code, int) else 0


def _lost(cause: OSError) -> int:
    """Say why a stream cannot be written, unless nobody reads it; return the exit code."""
    closed = isinstance(cause, BrokenPipeError)
    # what is still to be written goes nowhere, so that Python does not fail at it once more when it ends
    for stream in (sys.stdout, sys.stderr) if closed else (sys.stdout,):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if closed:
        return PIPE_CLOSED
    with suppress(_StreamError):
        click.echo(f"error: the output cannot be written: {reason(cause)}.", err=True)
    return WRONG_USE


class _StreamError(Exception):
    """A standard stream cannot be written. No OSError, because click ends with 1 where it meets a closed pipe."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Stream:
    """A text stream that escapes what its encoding cannot show; its errors are _StreamError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # what a test or a notebook puts there may have neither
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        encoding = getattr(stream, "encoding", None) or "utf-8"
        # click takes ASCII for a mistake, and then writes UTF-8 into the buffer
        self._hidden = {"buffer"} if codecs.lookup(encoding).name == "ascii" else set()

    @classmethod
    def over(cls, stream: Any) -> Any:
        """Return the stream over `stream`, which is None where a program has no console."""
        return stream if stream is None or isinstance(stream, cls) else cls(stream)

    def write(self, text: str) -> int:
        """Write the text; return the number of characters."""
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _StreamError(error) from error

    def flush(self) -> None:
        """Write what is waiting."""
        try:
            self._stream.flush()
        except OSError as error:
            raise _StreamError(error) from error

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(name)
        return getattr(self._stream, name)
