"""Chooses between the implementations of an operation."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")


def platform() -> str:
    """Returns where a call runs, by JAX's name: the platform of ``jax.default_device``, or the default backend."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    if device is None:
        return jax.default_backend()
    return (jax.local_devices(backend=device)[0] if isinstance(device, str) else device).platform


def dispatch(
    operation: str,
    implementations: Mapping[str, Callable[..., Result]],
    implementation: str | None,
    *arguments: Any,
) -> Result:
    """Calls one of several implementations of an operation.

    Args:
        operation: the name that messages give it.
        implementations: by name, the best first. One that cannot run these arguments here raises
            ``NotImplementedError`` with the reason.
        implementation: the name of one, which then runs or raises; None takes the first that can run.
        *arguments: of the operation.

    Returns:
        What the implementation returns.

    Raises:
        ValueError: no implementation has that name.
        NotImplementedError: the named implementation, or every one, cannot run here; the message gives the reasons.
    """
    if implementation is not None:
        if implementation not in implementations:
            names = ", ".join(implementations)
            raise ValueError(
                f"{operation} has no implementation {implementation!r}; choose from {names}, or None"
            )
        return implementations[implementation](*arguments)
    reasons = []
    for name, call in implementations.items():
        try:
            return call(*arguments)
        except NotImplementedError as reason:
            reasons.append(f"{name}: {reason}")
    raise NotImplementedError(f"no implementation of {operation} can run here ({'; '.join(reasons)})")
