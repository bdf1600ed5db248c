"""The one exception for bad input: its one line names what was expected, what came, and how to mend it."""


class WavegenError(ValueError):
    """Input that cannot be used: a file, a configuration, a checkpoint or an argument.

    The command line prints its message as one line and exits with status 2; a traceback would add nothing.
    """
