"""What was uploaded: MIDI files and recordings, recognised by their bytes and bounded by what they decode to."""

import io
from dataclasses import dataclass

import soundfile

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.notes.midi import parse_midi
from wavegen.notes.score import Score

BYTES, SECONDS, NOTES = 8 << 20, 120, 50_000
"""The largest upload: its bytes, the seconds that they decode to, and the notes of a MIDI file."""
VALUES = SECONDS * 2 * 48_000
"""Samples of all channels that an upload may decode to."""


@dataclass(frozen=True)
class Upload:
    """What an upload holds: one of the two.

    Attributes:
        score: of a MIDI file.
        audio: of a recording.
    """

    score: Score | None = None
    audio: Audio | None = None

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self.audio.samples.nbytes if self.audio is not None else 48 * len(self.score or ())

    def described(self) -> dict[str, str | float]:
        """Its kind and size, for whoever sent it."""
        if self.score is not None:
            return {"kind": "notes", "notes": len(self.score), "tracks": len(self.score.tracks)}
        assert self.audio is not None
        return {"kind": "audio", "seconds": self.audio.duration, "channels": self.audio.channels}


def understand(data: bytes) -> Upload:
    """Reads what was uploaded.

    Raises:
        WavegenError: it is neither, is damaged, or is too large.
    """
    if data[:4] in (b"MThd", b"RIFF") and (data[:4] == b"MThd" or data[8:12] == b"RMID"):
        score = parse_midi(data)
        if not 0 < len(score) <= NOTES:
            raise WavegenError(f"expected a MIDI file of 1 to {NOTES} notes, got {len(score)}")
        return Upload(score=score)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            # Headers may say anything: no more is decoded than is allowed.
            most = min(SECONDS * file.samplerate, VALUES // file.channels)
            samples = file.read(most + 1, dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise WavegenError(f"expected a recording or a MIDI file, got neither: {error}") from None
    if not 0 < len(samples) <= most:
        raise WavegenError(
            f"expected a recording that is not empty, of at most {SECONDS} seconds and as much data as two channels of "
            "48 kHz; cut it"
        )
    return Upload(audio=Audio(samples, rate))
