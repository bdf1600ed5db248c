"""Whether two configurations are of one experiment, so that one may go on from the other's weights."""

from typing import Any

from wavegen.config import Config

# What may change between the parts of one run: none of it moves the weights, but by rounding on other devices.
_FREE = {
    *("data.path", "data.cache", "data.prefetch"),
    *("training.mesh.data", "training.mesh.fsdp", "training.mesh.cpu_devices"),
    "training.steps",  # a run may be made longer, see wavegen.training.loop
    *("training.log_every", "training.evaluate_every", "training.evaluate_batches"),
    *("training.checkpoint_every", "training.keep_latest", "training.keep_best"),
    *("training.sample_every", "training.sample_seconds", "training.sample_count"),
}


def differences(there: Config, asked: Config) -> list[str]:
    """Returns what makes two configurations different experiments, each as ``seed is 1 there, 2 asked for``."""
    return list(_differences(there.model_dump(), asked.model_dump()))


def _differences(there: Any, asked: Any, prefix: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(asked, dict):
        keys = sorted({*there, *asked})
        return [
            d
            for k in keys
            for d in _differences(there.get(k), asked.get(k), f"{prefix}.{k}" if prefix else k)
        ]
    return [f"{prefix} is {there} there, {asked} asked for"] if there != asked and prefix not in _FREE else []
