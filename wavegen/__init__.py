"""wavegen: learn from recordings, generate new raw audio.

Public names are imported on first use, so that ``import wavegen`` does not start JAX.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegen.audio import Audio as Audio
    from wavegen.config import Config as Config
    from wavegen.config import load_config as load_config
    from wavegen.generation.audio import AudioGenerator as AudioGenerator
    from wavegen.generation.codec import Reconstructor as Reconstructor
    from wavegen.generation.load import load as load
    from wavegen.generation.masked import MaskedGenerator as MaskedGenerator
    from wavegen.generation.notes import NoteGenerator as NoteGenerator
    from wavegen.generation.song import Song as Song
    from wavegen.generation.song import compose_song as compose_song
    from wavegen.generation.windows import WindowGenerator as WindowGenerator
    from wavegen.notes.midi import read_midi as read_midi
    from wavegen.notes.midi import write_midi as write_midi
    from wavegen.notes.performance import Performance as Performance
    from wavegen.notes.score import Score as Score
    from wavegen.samplers.drawing import Drawing as Drawing

__version__ = "0.1.0"

_PUBLIC = {
    "Audio": "wavegen.audio",
    "AudioGenerator": "wavegen.generation.audio",
    "Config": "wavegen.config",
    "Drawing": "wavegen.samplers.drawing",
    "MaskedGenerator": "wavegen.generation.masked",
    "NoteGenerator": "wavegen.generation.notes",
    "Score": "wavegen.notes.score",
    "Performance": "wavegen.notes.performance",
    "Reconstructor": "wavegen.generation.codec",
    "Song": "wavegen.generation.song",
    "WindowGenerator": "wavegen.generation.windows",
    "compose_song": "wavegen.generation.song",
    "load": "wavegen.generation.load",
    "load_config": "wavegen.config",
    "read_midi": "wavegen.notes.midi",
    "write_midi": "wavegen.notes.midi",
}
_RENAMED = {"Generator": "AudioGenerator", "NoteDrawing": "Drawing", "Notes": "Score"}
"""Names of version 0.1, which version 0.3 will not have."""
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"wavegen.{name} is now wavegen.{_RENAMED[name]}; the old name will go with version 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _RENAMED[name]
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wavegen' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
