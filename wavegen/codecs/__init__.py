"""Audio or notes to integer tokens and back."""

from wavegen.codecs.base import AudioCodec, Codec, Codecs
from wavegen.codecs.make import make_codec, make_note_codec
from wavegen.codecs.notes.base import Interleaved, NoteCodec
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.codecs.samples import Linear, MuLaw, Sashimi

__all__ = [
    "AudioCodec",
    "Codec",
    "Codecs",
    "Interleaved",
    "Linear",
    "MuLaw",
    "NoteCodec",
    "NoteEvents",
    "NoteGrid",
    "Sashimi",
    "make_codec",
    "make_note_codec",
]
