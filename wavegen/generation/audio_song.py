"""A song of audio: sections are generated, varied where they are repeated, and joined by short cross-fades."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.form import SectionStopped, Stage, during, parse_form, seed_of, write_log
from wavegen.generation.masked import MaskedGenerator
from wavegen.generation.stems import fingerprint
from wavegen.pictures.audio import spectrograms
from wavegen.stopping import ProgressCallback, Stopped, silent

FADE_SECONDS = 0.03
"""Length of the cross-fade between two sections."""


@dataclass(frozen=True)
class AudioSong:
    """A song, and how it was made.

    Attributes:
        audio: of the whole.
        stages: in the order in which they were done.
        request: what was asked for.
    """

    audio: Audio
    stages: tuple[Stage, ...]
    request: Mapping[str, Any]

    def write(self, folder: str | Path) -> list[Path]:
        """Writes ``song.wav``, its spectrogram ``song.png``, and the log ``song.json``: the same song, the same bytes.

        Raises:
            WavegenError: a folder that cannot be written.
        """
        folder = Path(folder)
        paths = [folder / "song.wav", folder / "song.png"]
        self.audio.write(paths[0])
        spectrograms(paths[1], {"song": self.audio})
        return write_log(folder, self.request, self.stages, {path.name: fingerprint(path) for path in paths})


def compose_audio_song(
    model: AudioGenerator | MaskedGenerator,
    *,
    seconds: float = 16.0,
    form: str = "AABA",
    seed: int = 0,
    seed_piece: Audio | None = None,
    remix: float = 0.0,
    labels: Mapping[str, str] | None = None,
    progress: ProgressCallback = silent,
) -> AudioSong:
    """Composes a song of audio; the same arguments give the same song.

    The first section is generated, or continues the seed piece, which is no part of it; every further new one
    continues the new one before it. A section that is repeated is the same again, or with ``remix`` a variation.

    Args:
        model: generates the sections.
        seconds: of the whole song; its sections are equally long.
        form: see ``wavegen.compose_song``.
        seed: of all stages.
        seed_piece: a recording that the first section continues.
        remix: share of the frames of a repeated section to draw anew, 0 to 1; needs a masked model.
        labels: see ``AudioGenerator.generate``.
        progress: called before each stage and within it. Where it raises ``Stopped``, the song is of the sections that
            are whole.

    Raises:
        Stopped: ``progress`` raised it before there was a section.
        WavegenError: a form, a length or a share that cannot be, or a model that cannot do its part.
    """
    names = parse_form(form)
    if not 0 <= remix <= 1:
        raise WavegenError(f"expected a share to remix in [0, 1], got {remix}; 0.2 draws a fifth anew")
    if remix and not isinstance(model, MaskedGenerator):
        raise WavegenError(
            f"remix needs a masked model, got {model.config.model.kind}; repeat sections as they are, with remix 0"
        )
    rate, fade = model.sample_rate, round(FADE_SECONDS * model.sample_rate)
    length = round(seconds / len(names) * rate)
    if length <= fade:
        raise WavegenError(
            f"expected sections above {FADE_SECONDS} seconds, got {seconds} for {len(names)} of them; ask for more"
        )
    stages = list[Stage]()
    sections: dict[str, Audio] = {}
    parts: list[Float[np.ndarray, "part C"]] = []

    def section(number: int, name: str) -> Float[np.ndarray, "part C"]:
        """Makes the next section, and notes how."""
        drawn = seed_of(seed, number)
        follow = during(progress, f"section {name}", number, len(names))
        follow(name, number, len(names))
        if name not in sections:
            # Each overlaps the next by a crossfade.
            wanted, before = length + fade, list(sections.values())[-1] if sections else seed_piece
            [grown] = model.generate(wanted / rate, seed=drawn, prompt=before, labels=labels, progress=follow)
            sections[name] = part = Audio(grown.samples[-wanted:], rate)
            did, arguments = "generate", {}
        elif remix:
            assert isinstance(model, MaskedGenerator)
            [part] = model.vary(sections[name], remix, seed=drawn, labels=labels, progress=follow)
            did, arguments = "vary", {"strength": remix}
        else:
            return sections[name].samples
        stages.append(Stage(did, name, drawn, arguments, {"seconds": part.duration}))
        return part.samples

    try:
        for number, name in enumerate(names):
            parts.append(section(number, name))
        during(progress, "arrange", len(names), len(names))("arrange", len(names), len(names))
    except SectionStopped as stop:
        if not parts:
            raise Stopped from stop
    names = names[: len(parts)]
    song = Audio(_crossfaded(parts, fade)[: length * len(names)], rate)
    stages.append(Stage("arrange", "", None, {"sections": names}, {"seconds": song.duration}))
    request = {
        "model": {"name": model.config.name, "kind": model.config.model.kind},
        "seconds": seconds,
        "form": form,
        "seed": seed,
        "remix": remix,
        "labels": dict(labels or {}),
    }
    return AudioSong(song, tuple(stages), request)


def _crossfaded(parts: list[Float[np.ndarray, "part C"]], fade: int) -> Float[np.ndarray, "T C"]:
    """Parts one after another; the last ``fade`` samples of each cross-fade into the first of the next.

    The powers of the two slopes add up to one, as those of unlike sounds do.
    """
    angle = np.linspace(0, np.pi / 2, fade, dtype=np.float32)[:, None]
    song = parts[0]
    for part in parts[1:]:
        joint = song[-fade:] * np.cos(angle) + part[:fade] * np.sin(angle)
        song = np.concatenate([song[:-fade], joint, part[fade:]])
    return song
