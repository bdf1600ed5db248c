"""Standard MIDI files in and out (RP-001, "Standard MIDI Files 1.0").

The reader is plain Python, so that no file can crash it: symusic 0.5.9, the fast parser, indexes a table by the pitch
byte of the file, and a byte of 128 or more makes it write outside that table (2,000 such notes abort the process).

Notes, track names, programs, tempos and metres are kept; controllers, pedals, bends and lyrics are dropped.
"""

from array import array
from collections import defaultdict, deque
from pathlib import Path

import numpy as np

from wavegen.atomic import atomic_write
from wavegen.errors import WavegenError
from wavegen.notes.score import END_OF_TIME, Score, Track

LARGEST = 8 << 20  # bytes of a file, about a million notes; this bounds time and memory
DRUMS = 9  # the channel of drums, from 0
_OFF, _ON, _PROGRAM, _PRESSURE = 0x80, 0x90, 0xC0, 0xD0
_NAME, _END, _TEMPO, _METRE = 0x03, 0x2F, 0x51, 0x58


def read_midi(path: str | Path) -> Score:
    """Reads a MIDI file of format 0 or 1.

    Each combination of chunk, channel and program that has notes becomes one track; a chunk with a program and no
    notes becomes a track without notes. A note-off ends the earliest note of its pitch that still sounds in its chunk
    and channel. A note that is never ended ends with its chunk, and one of no length lasts a tick. Tempo and metre
    changes are read from all chunks.

    Raises:
        WavegenError: if the file is missing, larger than 8 MiB, not MIDI, damaged or cut short, of format 2, in SMPTE
            time, or 2**28 ticks long or longer.

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
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise WavegenError(f"expected at most {LARGEST} bytes, got {size}: split the piece")
        return parse_midi(path.read_bytes())
    except OSError as error:
        raise WavegenError(f"cannot read {path}: {error.strerror or error}") from error
    except WavegenError as error:
        raise WavegenError(f"cannot read {path}: {error}") from error


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


def parse_midi(data: bytes) -> Score:
    """Returns the notes in the bytes of a MIDI file; see ``read_midi``."""
    if data[:4] != b"MThd":
        raise WavegenError(f"expected a MIDI file, which begins with 'MThd', got {data[:4]!r}")
    header = _chunk(data, 0)
    if len(header) < 6:
        raise WavegenError(f"expected a MIDI header of 6 bytes, got {len(header)}: the file is damaged")
    kind, promised, division = (int.from_bytes(header[i : i + 2]) for i in (0, 2, 4))
    if kind > 1:
        raise WavegenError(f"expected MIDI format 0 or 1, got {kind}: convert it")
    if not 1 <= division <= 0x7FFF:
        raise WavegenError(
            f"expected ticks per quarter note, got division {division:#06x} (SMPTE or 0): convert it"
        )
    file, at, found = _File(), 8 + len(header), 0
    while found < promised and at < len(data):
        chunk = _chunk(data, at)
        if data[at : at + 4] == b"MTrk":
            file.read_chunk(chunk, f"track {found}")
            found += 1
        at += 8 + len(chunk)
    if found < promised:
        raise WavegenError(
            f"cut short: the header promises {promised} tracks, the file holds {found}; copy it again"
        )
    return file.notes(division)


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


class _File:
    """What the chunks of a file have in common, collected chunk by chunk."""

    def __init__(self) -> None:
        self.rows = array("q")  # five numbers per note: pitch, onset, duration, velocity, track
        self.tracks: list[Track] = []
        self.tempos: list[tuple[int, int]] = []
        self.metres: list[tuple[int, int, int]] = []
        self.name = ""  # of the chunk that is being read

    def notes(self, ticks_per_quarter: int) -> Score:
        pitch, onset, duration, velocity, track = np.frombuffer(self.rows, np.int64).reshape(-1, 5).T
        return Score(
            pitch,
            onset,
            duration,
            velocity,
            track,
            tuple(self.tracks),
            ticks_per_quarter,
            np.array(self.tempos, np.int64).reshape(-1, 2),
            np.array(self.metres, np.int64).reshape(-1, 3),
        )

    def read_chunk(self, data: bytes, where: str) -> None:
        """Reads the events of a track chunk.

        Raises:
            WavegenError: at the first invalid event.
        """
        try:
            self._read_events(data)
        except IndexError as error:
            raise WavegenError(f"{where}: the last event is cut short; the file is damaged") from error
        except WavegenError as error:
            raise WavegenError(f"{where}: {error}") from error

    def _read_events(self, data: bytes) -> None:
        # By channel and pitch: onset, velocity and track of the notes that sound, the earliest first.
        sounding: defaultdict[tuple[int, int], deque[tuple[int, int, int]]] = defaultdict(deque)
        programs: dict[int, int] = {}  # by channel
        players: dict[tuple[int, int], int] = {}  # the track of a channel and program
        self.name, at, tick, running = "", 0, 0, 0
        while at < len(data):
            wait = data[at]
            at += 1
            if wait > 0x7F:
                wait, at = _read_variable(data, at - 1)
            tick += wait
            status = data[at]
            if status < 0x80:
                status = running
            else:
                at += 1
            if not 0x80 <= status < 0xF0:
                at = self._read_system(status, data, at, tick)
                continue
            running = status
            kind, channel, one, two = status & 0xF0, status & 0x0F, data[at], 0
            at += 1
            if kind not in (_PROGRAM, _PRESSURE):  # these have one value, the others have two
                two = data[at]
                at += 1
            if (one | two) > 0x7F:
                raise WavegenError(
                    f"expected values under 128 before byte {at}, got {one}, {two}; the file is damaged"
                )
            if kind == _ON and two:
                player = players.setdefault((channel, programs.get(channel, 0)), len(players))
                sounding[channel, one].append((tick, two, len(self.tracks) + player))
            elif kind in (_ON, _OFF):
                if ended := sounding.get((channel, one)):
                    onset, velocity, track = ended.popleft()
                    self.rows.extend((one, onset, max(tick - onset, 1), velocity, track))
            elif kind == _PROGRAM:
                programs[channel] = one
        if tick >= END_OF_TIME:
            raise WavegenError(
                f"expected a piece of under {END_OF_TIME} ticks, got {tick}; the file is damaged"
            )
        for (_, pitch), never_ended in sounding.items():
            for onset, velocity, track in never_ended:
                self.rows.extend((pitch, onset, max(tick - onset, 1), velocity, track))
        keys = list(players) or list(programs.items())[:1]
        self.tracks += [Track(self.name, program, channel == DRUMS) for channel, program in keys]

    def _read_system(self, status: int, data: bytes, at: int, tick: int) -> int:
        """Reads a meta or system-exclusive event after its status; returns where the next event begins."""
        if status not in (0xFF, 0xF0, 0xF7):
            raise WavegenError(f"expected an event before byte {at}, got {status:#04x}; the file is damaged")
        what, at = (data[at], at + 1) if status == 0xFF else (-1, at)
        length, at = _read_variable(data, at)
        body = data[at : at + length]
        if len(body) < length:
            raise IndexError
        if what == _END:
            return len(data)
        if what == _NAME:
            self.name = self.name or _text(body)
        elif what == _TEMPO:
            self.tempos.append((tick, _tempo(body)))
        elif what == _METRE:
            self.metres.append((tick, *_metre(body)))
        return at + length


def _chunk(data: bytes, at: int) -> bytes:
    length = int.from_bytes(data[at + 4 : at + 8])
    body = data[at + 8 : at + 8 + length]
    if len(body) < length or at + 8 > len(data):
        raise WavegenError(
            f"cut short: a chunk of {length} bytes, {len(body)} of them here; copy the file again"
        )
    return body


def _read_variable(data: bytes, at: int) -> tuple[int, int]:
    """Returns a variable-length number, of 4 bytes at most, and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for end in range(at + 1, at + 4):
        byte = data[end]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, end + 1
    raise WavegenError(f"expected a number of at most 4 bytes at byte {at}, got more; the file is damaged")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")  # The standard names no encoding; this one decodes any bytes.


def _tempo(body: bytes) -> int:
    tempo = int.from_bytes(body)
    if len(body) != 3 or not tempo:
        raise WavegenError(
            f"expected a tempo of 3 bytes above 0, got {body[:8].hex() or 'none'}; the file is damaged"
        )
    return tempo


def _metre(body: bytes) -> tuple[int, int]:
    if len(body) < 2 or not body[0] or body[1] > 7:
        raise WavegenError(
            f"expected a metre such as 3/4, got the bytes {body[:8].hex()}; the file is damaged"
        )
    return body[0], 1 << body[1]


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
