"""wavegen: learn from recordings, generate new raw audio.

Public names are imported on first use, so that ``import wavegen`` does not start JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegen.audio import Audio as Audio
    from wavegen.config import Config as Config
    from wavegen.config import load_config as load_config
    from wavegen.generator import Generator as Generator
    from wavegen.generator import load as load
    from wavegen.notes.score import Notes as Notes

__version__ = "0.1.0"

_PUBLIC = {
    "Audio": "wavegen.audio",
    "Config": "wavegen.config",
    "Generator": "wavegen.generator",
    "load": "wavegen.generator",
    "load_config": "wavegen.config",
    "Notes": "wavegen.notes.score",
}
__all__ = ["Audio", "Config", "Generator", "Notes", "load", "load_config"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wavegen' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
