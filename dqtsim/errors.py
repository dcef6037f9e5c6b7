"""The few kinds of error dqtsim raises.

Every message is one sentence that says which rule was broken, what was found, and where. The command line prints it
and exits with 2; wrong input never gives a traceback. `cut` and `listed` keep a sentence short, however long the
texts of a file are.
"""

from collections.abc import Sequence

_LETTERS, _NAMES = 60, 32


class DqtsimError(Exception):
    """Base of every error that the user can cause and correct."""


class ModelError(DqtsimError):
    """A model file, a graph or one of its nodes breaks the format (names node, operator, domain or tensor)."""


class TargetError(DqtsimError):
    """A target description is malformed, or a model does not fit the target."""


class InputError(DqtsimError):
    """A picture, an array or a data folder is not what the model or the trainer needs."""


class WidthError(DqtsimError):
    """A `--bits` specification asks for widths that do not exist."""


class AccumulatorError(DqtsimError):
    """A sum left the accumulator of a target whose overflow policy is ERROR."""


class GoldenError(DqtsimError):
    """Golden vectors are missing, corrupt or belong to another model."""


class OutputError(DqtsimError):
    """A file or folder cannot be written, or holds something that dqtsim did not make and will not delete."""


class ToolError(DqtsimError):
    """A program that dqtsim starts is not installed, or failed."""


def cut(value: object) -> str:
    """Return a text or value of a file as error sentences show it; a long one is cut to its beginning."""
    text = str(value)
    return text if len(text) <= _LETTERS + 3 else f"{text[:_LETTERS]}..."


def listed(texts: Sequence[str], between: str = ", ") -> str:
    """Return texts as error sentences list them: the first few, and how many more there are."""
    shown = between.join(texts[:_NAMES])
    return shown if len(texts) <= _NAMES else f"{shown} and {len(texts) - _NAMES:,} more"


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read, as the end of a sentence."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (error.strerror or str(error)).lower()
