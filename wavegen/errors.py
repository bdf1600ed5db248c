"""The one exception for bad input: its one line names what was expected, what came, and how to mend it."""

import math

_LONGEST = 1000
"""Characters of a message: what a file holds is quoted in it, and files hold anything."""


class WavegenError(ValueError):
    """Input that cannot be used: a file, a configuration, a checkpoint or an argument.

    The command line prints its message as one line and exits with status 2; a traceback would add nothing. Line breaks
    become spaces, and of a message of more than 1,000 characters the middle is left out.
    """

    def __init__(self, message: str) -> None:
        # Only the ends are split, as what is quoted may be a whole file.
        half = _LONGEST // 2
        line = message if len(message) <= _LONGEST else f"{message[:half]} ... {message[-half:]}"
        super().__init__(" ".join(line.split()))


def require_least(**values: tuple[float, float]) -> None:
    """Checks numbers against their lowest values: ``name=(value, lowest)``.

    Raises:
        WavegenError: if a number is lower, or not finite.
    """
    for name, (value, lowest) in values.items():
        if not (math.isfinite(value) and value >= lowest):
            raise WavegenError(f"{name} must be at least {lowest}, got {value}")


def require_share(name: str, value: float) -> None:
    """Checks a share of probability.

    Raises:
        WavegenError: if it does not lie in (0, 1].
    """
    if not 0 < value <= 1:
        raise WavegenError(f"{name} must lie in (0, 1], got {value}; 1 draws among all tokens")
