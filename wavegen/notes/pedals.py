"""How long notes sound: what pedals and the messages that end all sound do to the times of the keys.

A channel is one instrument, whichever chunks of a file play on it. Source: the MIDI 1.0 detailed specification,
controllers 64 (damper), 66 (sostenuto), 120 (all sound off) and 121 (reset all controllers).
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

DAMPER, SOSTENUTO, SOUND_OFF, RESET, NOTES_OFF = 64, 66, 120, 121, 123
_DOWN = 64  # the lowest value of a controller that presses a pedal

Event = tuple[int, int, int, int]
"""A controller's tick, channel, number and value."""


def sounding_ends(
    pitch: Int[np.ndarray, " notes"],
    onset: Int[np.ndarray, " notes"],
    released: Int[np.ndarray, " notes"],
    channel: Int[np.ndarray, " notes"],
    events: Iterable[Event],
    end: int,
) -> Int[np.ndarray, " notes"]:
    """Returns the tick at which each note falls silent.

    A note whose key is released while the damper pedal is down sounds until the pedal rises, or its key is struck
    again. The sostenuto pedal does so for the keys that are down when it is pressed. A pedal that goes down, or
    rises, at the tick of a release does not lengthen that note. A pedal that never rises is held until ``end``.

    Args:
        pitch: MIDI numbers.
        onset: ticks.
        released: the ticks at which the keys are released.
        channel: of each note.
        events: changes of controllers, in any order of channels, each channel's in order of time.
        end: the last tick of the piece.
    """
    ends = released.copy()
    changes: defaultdict[int, list[Event]] = defaultdict(list)
    for event in events:
        changes[event[1]].append(event)
    for number, mine in changes.items():
        mine.sort(key=lambda event: event[0])
        notes = np.flatnonzero(channel == number)
        start, key_up = onset[notes], released[notes]
        ends[notes] = key_up
        for pedal in (DAMPER, SOSTENUTO):
            down, up = _presses(mine, pedal, end)
            if not len(down):
                continue
            press = np.searchsorted(down, key_up) - 1  # the last one before the release
            held = (press >= 0) & (key_up < up[press])
            if pedal == SOSTENUTO:
                held &= start <= down[press]
            ends[notes] = np.where(held, np.maximum(ends[notes], up[press]), ends[notes])
        # The same string cannot sound twice: a key that is struck again ends its own note. No tick reaches 2**28.
        keys = (pitch[notes] << 29) + start
        order = np.sort(keys)
        following = np.searchsorted(order, (pitch[notes] << 29) + key_up)
        again = order[np.minimum(following, len(order) - 1)]
        struck = (following < len(order)) & (again >> 29 == pitch[notes])
        again_at = np.where(struck, again & ((1 << 29) - 1), end)
        ends[notes] = np.maximum(np.minimum(ends[notes], again_at), key_up)
        cuts = np.array([tick for tick, _, what, _ in mine if what == SOUND_OFF], np.int64)
        if len(cuts):
            cut = np.append(cuts, end + 1)[np.searchsorted(cuts, key_up)]
            ends[notes] = np.minimum(ends[notes], cut)
    return ends


def _presses(
    events: list[Event], pedal: int, end: int
) -> tuple[Int[np.ndarray, " presses"], Int[np.ndarray, " presses"]]:
    """Returns where a pedal goes down and where it rises, in order of time."""
    down: list[int] = []
    up: list[int] = []
    for tick, _, what, value in events:
        pressed = what == pedal and value >= _DOWN
        if pressed and len(down) == len(up):
            down.append(tick)
        elif not pressed and what in (pedal, RESET) and len(down) > len(up):
            up.append(tick)
    if len(down) > len(up):
        up.append(end)
    return np.array(down, np.int64), np.array(up, np.int64)
