"""wavegen: learn from recordings, generate new raw audio.

Public names are imported on first use, so that ``import wavegen`` does not start JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegen.audio import Audio as Audio
    from wavegen.config import Config as Config
    from wavegen.config import load_config as load_config
    from wavegen.generation.audio import Generator as Generator
    from wavegen.generation.codec import Reconstructor as Reconstructor
    from wavegen.generation.load import load as load
    from wavegen.generation.masked import Drawing as Drawing
    from wavegen.generation.masked import MaskedGenerator as MaskedGenerator
    from wavegen.generation.notes import NoteDrawing as NoteDrawing
    from wavegen.generation.notes import NoteGenerator as NoteGenerator
    from wavegen.generation.song import Song as Song
    from wavegen.generation.song import compose_song as compose_song
    from wavegen.generation.windows import WindowGenerator as WindowGenerator
    from wavegen.notes.midi import read_midi as read_midi
    from wavegen.notes.midi import write_midi as write_midi
    from wavegen.notes.performance import Performance as Performance
    from wavegen.notes.score import Notes as Notes

__version__ = "0.1.0"

_PUBLIC = {
    "Audio": "wavegen.audio",
    "Config": "wavegen.config",
    "Drawing": "wavegen.generation.masked",
    "Generator": "wavegen.generation.audio",
    "MaskedGenerator": "wavegen.generation.masked",
    "NoteDrawing": "wavegen.generation.notes",
    "NoteGenerator": "wavegen.generation.notes",
    "Notes": "wavegen.notes.score",
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
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wavegen' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
