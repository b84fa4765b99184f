"""The one family of errors that ltdpipe raises on purpose.

Every message names the file or the setting, what was expected, what was found, and what to do next. The command line
prints it in one line and exits with ``exit_code`` (documented in docs/cli.md).
"""


class LtdpipeError(Exception):
    """Base of all deliberate errors; ``exit_code`` is what the command exits with."""

    exit_code = 1


class SettingError(LtdpipeError, ValueError):
    """A parameter, option or argument is wrong: the user can mend it by editing what they typed."""

    exit_code = 2


class DataError(LtdpipeError, ValueError):
    """A file is missing, damaged, stale, or does not belong to the other files it is used with."""

    exit_code = 3


class ResourceError(LtdpipeError, OSError):
    """The machine cannot do it: no room, no permission, weights that cannot be fetched."""

    exit_code = 4


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another library says, or its type where it says nothing."""
    return next(filter(None, str(error).splitlines()), type(error).__name__)
