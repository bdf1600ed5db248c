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
    from wavegen.loading import load as load
    from wavegen.masked_generator import Drawing as Drawing
    from wavegen.masked_generator import MaskedGenerator as MaskedGenerator
    from wavegen.note_generator import NoteDrawing as NoteDrawing
    from wavegen.note_generator import NoteGenerator as NoteGenerator
    from wavegen.notes.events import Notes as Notes
    from wavegen.notes.midi import read_midi as read_midi
    from wavegen.notes.midi import write_midi as write_midi
    from wavegen.notes.score import Performance as Performance
    from wavegen.reconstructor import Reconstructor as Reconstructor
    from wavegen.song import Song as Song
    from wavegen.song import compose_song as compose_song
    from wavegen.window_generator import WindowGenerator as WindowGenerator

__version__ = "0.1.0"

_PUBLIC = {
    "Audio": "wavegen.audio",
    "Config": "wavegen.config",
    "Drawing": "wavegen.masked_generator",
    "Generator": "wavegen.generator",
    "MaskedGenerator": "wavegen.masked_generator",
    "NoteDrawing": "wavegen.note_generator",
    "NoteGenerator": "wavegen.note_generator",
    "Notes": "wavegen.notes.events",
    "Performance": "wavegen.notes.score",
    "Reconstructor": "wavegen.reconstructor",
    "Song": "wavegen.song",
    "WindowGenerator": "wavegen.window_generator",
    "compose_song": "wavegen.song",
    "load": "wavegen.loading",
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
