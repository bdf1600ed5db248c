"""Puts the arguments of a command in the order that its parser reads."""

import inspect
from collections.abc import Callable, Sequence


def arranged(command: Callable[..., None], arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the positional ones first, so that options may stand anywhere among them.

    The parser takes several values of one positional argument only where nothing stands between them.

    Args:
        command: function of the command; its options that are no switches take one value.
        arguments: what follows the name of the command.

    Example:
        >>> from wavegen.cli import COMMANDS
        >>> from wavegen.cli.arguments import arranged
        >>> arranged(COMMANDS["study"], ["s.yaml", "seeds=[0]", "--dry-run", "--out", "o", "training.steps=5"])
        ['s.yaml', 'seeds=[0]', 'training.steps=5', '--dry-run', '--out', 'o']
    """
    parameters = inspect.signature(command).parameters.values()
    if not any(p.kind is p.POSITIONAL_ONLY and "tuple" in str(p.annotation) for p in parameters):
        return list(arguments)
    switches = {"-h", "--help"}
    for parameter in parameters:
        if parameter.annotation in (bool, "bool"):
            name = parameter.name.replace("_", "-")
            switches |= {f"--{name}", f"--no-{name}"}
    positional, options, is_value = list[str](), list[str](), False
    for argument in arguments:
        is_option = argument.startswith("-") and not is_value
        (options if is_option or is_value else positional).append(argument)
        is_value = is_option and argument not in switches and "=" not in argument
    return positional + options
