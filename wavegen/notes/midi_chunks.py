"""The events of a MIDI file's track chunks, read one by one; ``wavegen.notes.midi`` reads the file around them."""

from array import array
from collections import defaultdict, deque

import numpy as np

from wavegen.errors import WavegenError
from wavegen.losses import Losses
from wavegen.notes.pedals import DAMPER, NOTES_OFF, RESET, SOSTENUTO, SOUND_OFF, sounding_ends
from wavegen.notes.score import END_OF_TIME, Score, Track

HELD = "notes that a pedal holds"  # nothing is lost by it: it is counted for the report of a dataset
DRUMS = 9  # the channel of drums, from 0
_OFF, _ON, _CONTROL, _PROGRAM, _PRESSURE = 0x80, 0x90, 0xB0, 0xC0, 0xD0
_NAME, _END, _TEMPO, _METRE = 0x03, 0x2F, 0x51, 0x58
_PEDALS = (DAMPER, SOSTENUTO, RESET, SOUND_OFF)
_SOUNDING = frozenset((*_PEDALS, *range(NOTES_OFF, 128)))  # controllers that change how long notes sound
_COMMON = {0xF1: 1, 0xF2: 2, 0xF3: 1}
"""Values of the system messages that have some; these messages belong on a cable, not into a file."""

_Sounding = dict[int, deque[tuple[int, int, int]]]
"""By pitch: onset, velocity and track of the notes that sound, the earliest first."""


class Chunks:
    """What the chunks of a file have in common, collected chunk by chunk.

    Args:
        losses: damage in what is not used is counted here.
    """

    def __init__(self, losses: Losses) -> None:
        self._rows = array("q")  # six numbers per note: pitch, onset, end, velocity, track, channel
        self._tracks: list[Track] = []
        self._tempos: list[tuple[int, int]] = []
        self._metres: list[tuple[int, int, int]] = []
        self._pedals: list[tuple[int, int, int, int]] = []
        self._name = ""  # of the chunk that is being read
        self._end = 0  # the last tick of all chunks
        self._losses = losses

    def score(self, ticks_per_quarter: int, pedal: bool) -> Score:
        """Returns the notes of all chunks; with ``pedal`` they end where they fall silent, else with their keys."""
        pitch, onset, end, velocity, track, channel = np.frombuffer(self._rows, np.int64).reshape(-1, 6).T
        if pedal and self._pedals:
            sounding = sounding_ends(pitch, onset, end, channel, self._pedals, self._end)
            if held := int((sounding > end).sum()):
                self._losses[HELD] += held
            end = sounding
        return Score(
            pitch,
            onset,
            np.maximum(end - onset, 1),
            velocity,
            track,
            tuple(self._tracks),
            ticks_per_quarter,
            np.array(self._tempos, np.int64).reshape(-1, 2),
            np.array(self._metres, np.int64).reshape(-1, 3),
        )

    def read(self, data: bytes, start: int, stop: int, where: str) -> int:
        """Reads the events of a track chunk, up to its end-of-track event or ``stop``; returns where they end.

        Args:
            data: the whole file.
            start: where the events begin.
            stop: where they end by the length of the chunk, which may be wrong; an end-of-track event counts.
            where: the name of the chunk in messages.

        Raises:
            WavegenError: at the first event without which the notes cannot be trusted, or if the file ends before the
                track.
        """
        try:
            return self._read_events(memoryview(data), start, stop)
        except IndexError as error:
            if stop > len(data):
                raise WavegenError(
                    f"cut short: a chunk of {stop - start} bytes, {len(data) - start} of them here; copy the file "
                    "again"
                ) from error
            raise WavegenError(f"{where}: the last event is cut short; the file is damaged") from error
        except WavegenError as error:
            raise WavegenError(f"{where}: {error}") from error

    def _read_events(self, whole: memoryview, start: int, stop: int) -> int:
        sounding: dict[int, _Sounding] = defaultdict(lambda: defaultdict(deque))  # by channel
        programs: dict[int, int] = {}  # by channel
        players: dict[tuple[int, int], int] = {}  # the track of a channel and program
        self._name, at, tick, running = "", start, 0, 0
        data = whole[:stop]  # a view: where every length lies, copies would take quadratic time
        ended = False
        while at < stop and not ended:
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
                at, ended = self._read_system(status, data, at, tick)
                continue
            running = status
            kind, channel, one, two = status & 0xF0, status & 0x0F, data[at], 0
            at += 1
            if kind not in (_PROGRAM, _PRESSURE):  # these have one value, the others have two
                two = data[at]
                at += 1
            if (one | two) > 0x7F:
                if (kind in (_ON, _OFF) and one > 0x7F) or (kind == _ON and two > 0x7F) or kind == _PROGRAM:
                    raise WavegenError(
                        f"expected values under 128 before byte {at - start}, got {one}, {two}; the file is damaged"
                    )
                self._losses["unused values above 127"] += 1
                one, two = one & 0x7F if kind in (_ON, _OFF) else 0, two & 0x7F
            if kind == _ON and two:
                player = players.setdefault((channel, programs.get(channel, 0)), len(players))
                sounding[channel][one].append((tick, two, len(self._tracks) + player))
            elif kind in (_ON, _OFF):
                if ended_notes := sounding[channel].get(one):
                    onset, velocity, track = ended_notes.popleft()
                    self._rows.extend((one, onset, tick, velocity, track, channel))
            elif kind == _PROGRAM:
                programs[channel] = one
            elif kind == _CONTROL and one in _SOUNDING:
                self._control(one, two, tick, channel, sounding[channel])
        if tick >= END_OF_TIME:
            raise WavegenError(
                f"expected a piece of under {END_OF_TIME} ticks, got {tick}; the file is damaged"
            )
        if not ended and stop > len(whole):
            raise IndexError
        before = len(self._rows)
        for channel, notes in sounding.items():
            self._end_all(channel, notes, tick)
        if len(self._rows) > before:
            self._losses["notes without an end"] += (len(self._rows) - before) // 6
        keys = list(players) or list(programs.items())[:1]
        self._tracks += [Track(self._name, program, channel == DRUMS) for channel, program in keys]
        self._end = max(self._end, tick)
        return at

    def _control(self, number: int, value: int, tick: int, channel: int, notes: _Sounding) -> None:
        """Keeps what pedals do, and ends the notes of a channel at "all notes off" and "all sound off"."""
        if number in _PEDALS and channel != DRUMS:
            self._pedals.append((tick, channel, number, value))
        if number == SOUND_OFF or number >= NOTES_OFF:
            self._end_all(channel, notes, tick)
            notes.clear()

    def _end_all(self, channel: int, notes: _Sounding, tick: int) -> None:
        for pitch, started in notes.items():
            for onset, velocity, track in started:
                self._rows.extend((pitch, onset, tick, velocity, track, channel))

    def _read_system(self, status: int, data: memoryview, at: int, tick: int) -> tuple[int, bool]:
        """Reads a system event after its status; returns where the next event begins, and whether the track ends."""
        if 0xF0 < status < 0xFF and status != 0xF7:
            self._losses["messages that belong on a cable skipped"] += 1
            return at + _COMMON.get(status, 0), False
        if status not in (0xFF, 0xF0, 0xF7):
            raise WavegenError("expected an event, got values without one; the file is damaged")
        what, at = (data[at], at + 1) if status == 0xFF else (-1, at)
        length, at = _read_variable(data, at)
        if at + length > len(data):
            raise IndexError
        body = bytes(data[at : at + length])
        if what == _NAME:
            self._name = self._name or _text(body)
        elif what == _TEMPO:
            tempo = int.from_bytes(body)
            if len(body) == 3 and tempo:
                self._tempos.append((tick, tempo))
            else:
                self._losses["damaged tempos skipped"] += 1
        elif what == _METRE:
            if len(body) >= 2 and body[0] and body[1] <= 7:
                self._metres.append((tick, body[0], 1 << body[1]))
            else:
                self._losses["damaged metres skipped"] += 1
        return at + length, what == _END


def _read_variable(data: memoryview, at: int) -> tuple[int, int]:
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
    raise WavegenError("expected a number of at most 4 bytes, got more; the file is damaged")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")  # The standard names no encoding; this one decodes any bytes.
