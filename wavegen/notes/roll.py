"""Piano rolls: which pitches sound in each frame, to plot, to train on and to condition on."""

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance, pitch_name

PITCHES = 128
LARGEST = 1 << 22  # frames: 11 hours at 100 per second


def piano_roll(
    notes: Performance, frame_rate: float, frames: int | None = None
) -> Float32[np.ndarray, "F 128"]:
    """Returns the velocity of the notes that sound in each frame.

    A note sounds from the frame nearest to its onset to the last frame that begins before its end, and for at least
    one frame. Where notes of one pitch overlap, the one that began last counts.

    Args:
        notes: notes in seconds; for MIDI, ``Score.pitched()``.
        frame_rate: frames per second.
        frames: frames of the result; None ends with the last note.

    Returns:
        One row per frame and one column per pitch: velocity in (0, 1], 0 where nothing sounds.

    Raises:
        WavegenError: if the frame rate is not above 0 or there are more than 2**22 frames.

    Example:
        >>> import numpy as np
        >>> from wavegen import Performance
        >>> from wavegen.notes.roll import piano_roll
        >>> roll = piano_roll(Performance.parse("tempo 120, C4 1, E4 1"), frame_rate=4)
        >>> roll.shape, np.argmax(roll, axis=1).tolist()
        ((4, 128), [60, 60, 64, 64])
    """
    if not frame_rate > 0:
        raise WavegenError(f"expected more than 0 frames per second, got {frame_rate}")
    onset = np.rint(notes.onset * frame_rate)
    # A millionth of a frame of tolerance: an end is a sum of floats, and may lie above the frame on which it is meant.
    end = np.maximum(np.ceil((notes.onset + notes.duration) * frame_rate - 1e-6), onset + 1)
    frames = int(end.max(initial=0)) if frames is None else frames
    return _paint(notes.pitch, notes.velocity, onset.astype(np.int64), end.astype(np.int64), frames)


def from_piano_roll(roll: Float[np.ndarray, "F 128"], frame_rate: float) -> Performance:
    """Returns the notes of a piano roll: runs of one velocity in one column.

    ``piano_roll`` of them is ``roll`` again. A note that is repeated immediately with the same velocity becomes one
    long note.

    Args:
        roll: velocities, 0 to 1; 0 is silence.
        frame_rate: frames per second, above 0.

    Raises:
        WavegenError: if a velocity is outside 0 to 1.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.roll import from_piano_roll, piano_roll
        >>> melody = Performance.parse("tempo 120, C4 1, E4 2")
        >>> from_piano_roll(piano_roll(melody, 4), 4).duration.tolist()
        [0.5, 1.0]
    """
    wrong = ~((roll >= 0) & (roll <= 1))
    if wrong.any():
        frame, pitch = np.argwhere(wrong)[0]
        raise WavegenError(
            f"expected velocities from 0 to 1, got {roll[frame, pitch]} at frame {frame}, pitch {pitch}: clip the roll"
        )
    silence = np.zeros((1, PITCHES))
    changed = np.diff(np.concatenate([silence, roll, silence]), axis=0) != 0
    # In each column a change is either an onset or the beginning of silence.
    pitch, frame = np.nonzero(changed.T)
    velocity = np.concatenate([roll, silence])[frame, pitch]
    begins = velocity > 0
    following = np.append(frame[1:], 0)
    onset = frame[begins] / frame_rate
    return Performance(
        pitch[begins], onset, following[begins] / frame_rate - onset, velocity[begins].astype(np.float64)
    )


def roll_features(
    notes: Performance, sample_rate: int, hop: int, length: int, low: int = 0, high: int = PITCHES - 1
) -> Float32[np.ndarray, "F D"]:
    """Returns the condition of a model that plays chords: which notes sound at the first sample of every frame.

    Frame f covers samples [f * hop, (f + 1) * hop). Onsets are rounded to frames: audio that is rendered from the
    notes of ``Performance.quantize`` agrees with these features to the sample. A row depends on its own moment alone,
    so that the rows of a part of the audio are those of the whole.

    Args:
        notes: notes in seconds.
        sample_rate: sample rate in Hz.
        hop: samples per frame.
        length: samples of the audio; there are ceil(length / hop) frames.
        low: the lowest pitch.
        high: the highest pitch.

    Returns:
        One row per frame with D = 2 (high - low + 1) columns: for each pitch from ``low`` on the velocity of the note
        that sounds, 0 for none; then for each pitch the samples since the onset of that note, 0 for none.

    Raises:
        WavegenError: if a note is outside ``low`` to ``high`` or there are more than 2**22 frames.
    """
    outside = (notes.pitch < low) | (notes.pitch > high)
    if outside.any():
        where = int(np.argmax(outside))
        names = [f"{pitch_name(pitch)} ({pitch})" for pitch in (low, high, int(notes.pitch[where]))]
        raise WavegenError(
            f"expected pitches from {names[0]} to {names[1]}, got {names[2]} at {notes.onset[where]:.3f} s: "
            "transpose the notes, or widen the range of the model"
        )
    notes = notes.quantize(sample_rate, hop)
    onset = np.rint(notes.onset * sample_rate / hop).astype(np.int64)
    end = -(-np.rint((notes.onset + notes.duration) * sample_rate).astype(np.int64) // hop)
    frames = -(-length // hop)
    end = np.maximum(end, onset + 1)
    velocity, begun = (_paint(notes.pitch, column, onset, end, frames) for column in (notes.velocity, onset))
    age = np.where(velocity > 0, np.arange(frames, dtype=np.float32)[:, None] - begun, 0) * np.float32(hop)
    return np.concatenate([velocity[:, low : high + 1], age[:, low : high + 1]], axis=1)


def _paint(
    pitch: Int[np.ndarray, " notes"],
    values: Shaped[np.ndarray, " notes"],
    start: Int[np.ndarray, " notes"],
    stop: Int[np.ndarray, " notes"],
    frames: int,
) -> Float32[np.ndarray, "F 128"]:
    if frames > LARGEST:
        raise WavegenError(
            f"expected at most {LARGEST} frames, got {frames}: cut the piece or lower the frame rate"
        )
    roll = np.zeros((frames, PITCHES), np.float32)
    for column, value, first, last in zip(pitch, values, start, stop, strict=True):
        roll[first:last, column] = value
    return roll
