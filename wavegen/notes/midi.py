"""Standard MIDI files in and out (RP-001, "Standard MIDI Files 1.0").

The reader is plain Python, so that no file can crash it: symusic 0.5.9, the fast parser, indexes a table by the pitch
byte of the file, and a byte of 128 or more makes it write outside that table (2,000 such notes abort the process).

Notes, track names, programs, tempos and metres are kept. Pedals decide how long notes sound; other controllers, bends
and lyrics are dropped.
"""

from pathlib import Path

import numpy as np

from wavegen.atomic import atomic_write
from wavegen.bounded import read_bounded
from wavegen.errors import WavegenError
from wavegen.losses import Losses, warn_of
from wavegen.notes.midi_chunks import DRUMS, HELD, Chunks
from wavegen.notes.score import Score

LARGEST = 2 << 20  # bytes of a file, about 250,000 notes, which take two seconds; this bounds time and memory
_OFF, _ON, _PROGRAM, _METRE = 0x80, 0x90, 0xC0, 0x58


def read_midi(path: str | Path, *, pedal: bool = True, losses: Losses | None = None) -> Score:
    """Reads a MIDI file of format 0 or 1, also one that is wrapped in RIFF (.rmi).

    Each combination of chunk, channel and program that has notes becomes one track; a chunk with a program and no
    notes becomes a track without notes. A note-off ends the earliest note of its pitch that still sounds in its chunk
    and channel, and "all notes off" ends all of them. A note that is never ended ends with its chunk, and one of no
    length lasts a tick. Tempo and metre changes are read from all chunks.

    Damage in what is not used (a metre over 0, a tempo of 0, an event without its values, a wrong length of a track
    that ends properly) costs that event alone.

    Args:
        path: the file.
        pedal: notes last until they fall silent, as the damper and sostenuto pedals and "all sound off" say; False
            gives the times of the keys.
        losses: what was damaged or missing is counted here; None warns of it.

    Raises:
        WavegenError: if the file is missing, no file, larger than 2 MiB, not MIDI, damaged where its notes are, cut
            short, of format 2, in SMPTE time, or 2**28 ticks long or longer.

    Example:
        >>> import tempfile
        >>> from wavegen import Performance, read_midi, write_midi
        >>> from wavegen.notes.score import from_performance
        >>> notes = from_performance(Performance.parse("C4 1, E4 1, G4 2"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_midi(f"{folder}/chord.mid", notes)
        ...     again = read_midi(f"{folder}/chord.mid")
        >>> again == notes, again.pitch.tolist()
        (True, [60, 64, 67])
    """
    found = Losses() if losses is None else losses
    data = read_bounded(path, LARGEST, "a MIDI file", "split the piece")
    try:
        score = parse_midi(data, pedal=pedal, losses=found)
    except WavegenError as error:
        raise WavegenError(f"cannot read {path}: {error}") from error
    if losses is None:
        warn_of(path, {kind: count for kind, count in found.items() if kind != HELD})
    return score


def write_midi(path: str | Path, notes: Score) -> None:
    """Writes a MIDI file of format 1, whole or not at all: a chunk of tempos and metres, then one chunk per track.

    ``read_midi`` recovers the same notes unless a note lies within another of the same track and pitch. Tracks take
    the channels in turn, drum tracks channel 10; from the sixteenth pitched track on channels are shared.

    Args:
        path: the file to create or replace.
        notes: the piece.

    Raises:
        WavegenError: if the disk is full or the folder is not writable.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from wavegen import Performance, write_midi
        >>> from wavegen.notes.score import from_performance
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "note.mid")
        ...     write_midi(path, from_performance(Performance.parse("C4 1")))
        ...     path.read_bytes()[:4]
        b'MThd'
    """
    with atomic_write(path) as file:
        file.write(midi_bytes(notes))


def parse_midi(data: bytes, *, pedal: bool = True, losses: Losses | None = None) -> Score:
    """Returns the notes in the bytes of a MIDI file; see ``read_midi``."""
    losses = Losses() if losses is None else losses
    data = _unwrapped(data)
    if data[:4] != b"MThd":
        raise WavegenError(f"expected a MIDI file, which begins with 'MThd', got {data[:4]!r}")
    length = int.from_bytes(data[4:8])
    header = data[8 : 8 + length]
    if length < 6:
        raise WavegenError(f"expected a MIDI header of 6 bytes, got {length}: the file is damaged")
    if len(header) < length:
        raise WavegenError(
            f"cut short: a chunk of {length} bytes, {len(header)} of them here; copy the file again"
        )
    kind, promised, division = (int.from_bytes(header[i : i + 2]) for i in (0, 2, 4))
    if kind > 1:
        raise WavegenError(f"expected MIDI format 0 or 1, got {kind}: convert it")
    if not 1 <= division <= 0x7FFF:
        raise WavegenError(
            f"expected ticks per quarter note, got division {division:#06x} (SMPTE or 0): convert it"
        )
    file, at, found = Chunks(losses), 8 + length, 0
    while at < len(data):
        if data[at : at + 4] != b"MTrk":
            at = _next_chunk(data, at, found, promised, losses)
            continue
        if at + 8 > len(data):
            raise WavegenError("cut short: a chunk without its length; copy the file again")
        stop = at + 8 + int.from_bytes(data[at + 4 : at + 8])
        ended = file.read(data, at + 8, stop, f"track {found}")
        if ended != stop:
            # A length that lies: the track's own end counts, and the next track where one stands.
            wrong = stop > len(data) or data[ended : ended + 4] == b"MTrk"
            losses.update({"wrong lengths of tracks": 1} if wrong else {})
            stop = ended if wrong else stop
        at, found = stop, found + 1
    if not found and promised:
        raise WavegenError(
            f"cut short: the header promises {promised} tracks, the file holds none; copy it again"
        )
    if found < promised:
        losses["tracks that the header promises and the file lacks"] += promised - found
    return file.score(division, pedal)


def midi_bytes(notes: Score) -> bytes:
    """Returns the bytes of a MIDI file; see ``write_midi``."""
    events = [(int(tick), b"\xff\x51\x03" + int(tempo).to_bytes(3)) for tick, tempo in notes.tempos]
    for tick, numerator, denominator in notes.metres.tolist():
        # 24 clocks per metronome click and 8 thirty-second notes per quarter note, as in all files.
        events.append((tick, bytes([0xFF, _METRE, 4, numerator, denominator.bit_length() - 1, 24, 8])))
    chunks, pitched = [_track_chunk(events)], 0
    by_track = np.argsort(notes.track, kind="stable")
    onset, duration, pitch, velocity = (
        getattr(notes, name)[by_track].tolist() for name in ("onset", "duration", "pitch", "velocity")
    )
    bounds = np.searchsorted(notes.track[by_track], np.arange(len(notes.tracks) + 1)).tolist()
    for track, start, stop in zip(notes.tracks, bounds[:-1], bounds[1:], strict=True):
        channel = DRUMS
        if not track.drum:
            channel = pitched % 15 + (pitched % 15 >= DRUMS)
            pitched += 1
        name = track.name.encode()
        events = [(0, b"\xff\x03" + _variable(len(name)) + name)] if name else []
        events.append((0, bytes([_PROGRAM | channel, track.program])))
        mine = range(start, stop)
        # Ends stand before onsets, so that a repeated note at the same tick is not ended at once.
        events += sorted((onset[n] + duration[n], bytes([_OFF | channel, pitch[n], 0])) for n in mine)
        events += [(onset[n], bytes([_ON | channel, pitch[n], velocity[n]])) for n in mine]
        chunks.append(_track_chunk(events))
    header = b"".join(number.to_bytes(2) for number in (1, len(chunks), notes.ticks_per_quarter))
    return b"MThd" + len(header).to_bytes(4) + header + b"".join(chunks)


def _unwrapped(data: bytes) -> bytes:
    """Returns the MIDI file within a RIFF file (RMID, RP-029), or the bytes as they are."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise WavegenError("expected MIDI in a chunk 'data' of the RIFF file, got no such chunk")


def _next_chunk(data: bytes, at: int, found: int, promised: int, losses: Losses) -> int:
    """Returns where to read on after something that is no track: behind a chunk of another kind, or at a track."""
    length = int.from_bytes(data[at + 4 : at + 8])
    if data[at : at + 4].isalnum() and at + 8 + length <= len(data):
        return at + 8 + length
    if found >= promised:
        return len(data)
    track = data.find(b"MTrk", at)
    if track < 0:
        losses["bytes that are no track skipped"] += len(data) - at
    return len(data) if track < 0 else track


def _track_chunk(events: list[tuple[int, bytes]]) -> bytes:
    body, now = [], 0
    for tick, event in sorted(events, key=lambda event: event[0]):
        body += [_variable(tick - now), event]
        now = tick
    data = b"".join([*body, b"\x00\xff\x2f\x00"])
    return b"MTrk" + len(data).to_bytes(4) + data


def _variable(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))
