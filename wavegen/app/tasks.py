"""What may be asked of a model: a form with bounds for each task, which models can do it, and how it is done."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from wavegen.app.jobs import Job, wav_bytes
from wavegen.app.uploads import SECONDS, Upload
from wavegen.audio import Audio
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.masked import MaskedGenerator
from wavegen.generation.notes import NoteGenerator
from wavegen.generation.windows import WindowGenerator
from wavegen.models.base import SourceModel
from wavegen.notes.midi import midi_bytes
from wavegen.notes.performance import Performance
from wavegen.notes.score import Score
from wavegen.samplers.drawing import Drawing

Length = Annotated[float, Field(gt=0, le=SECONDS, description="seconds of what is generated")]


class FieldError(WavegenError):
    """An error of one field of a form.

    Args:
        field: its name.
        message: what is wrong with it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Task(BaseModel):
    """What all tasks have; a member adds its own ``task``, which names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(max_length=200, description="a name from the list of models")
    seed: int = Field(0, ge=0, lt=1 << 31, description="the same seed gives the same result")
    count: int = Field(1, ge=1, le=4, description="results side by side")
    temperature: float | None = Field(
        None, ge=0, le=2, description="below 1 calmer, above 1 wilder; left out, the model's own"
    )
    labels: dict[str, str] = Field({}, max_length=16, description="values of the model's label fields")

    @classmethod
    @abstractmethod
    def fits(cls, model: Any) -> bool:
        """Whether a model can do it."""

    @abstractmethod
    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """Checks what can be checked before anything is drawn, and returns the work.

        Raises:
            FieldError: a field names what is not there, or what the model cannot use.
        """

    def options(self) -> dict[str, Any]:
        """The arguments that all generators take."""
        drawing = Drawing(temperature=self.temperature)
        return {"seed": self.seed, "count": self.count, "labels": self.labels, "drawing": drawing}

    def check_labels(self, model: Any) -> None:
        """Refuses labels that the model does not know.

        Raises:
            FieldError: there is such a field or value.
        """
        fields = model.config.model.label_fields
        for name, value in self.labels.items():
            if name not in fields:
                known = ", ".join(fields) or "none"
                raise FieldError("labels", f"this model has no label field '{name}'; it has {known}")
            if value not in model.labels[name]:
                raise FieldError("labels", f"label {name}={value} was not in the training data")


class Play(Task):
    """Notes to audio, as a melody in text or an uploaded MIDI file; the audio comes while it is drawn."""

    task: Literal["play"]
    notes: str = Field("", max_length=20_000, description="a melody as text, as C4 1, E4 1/2")
    upload: str | None = Field(None, max_length=64, description="of a MIDI file, in place of the text")

    @classmethod
    def fits(cls, model: Any) -> bool:
        """See ``Task``."""
        return isinstance(model, AudioGenerator) and model.plays

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        if self.upload is not None:
            notes = _score(uploads, self.upload).pitched()
        else:
            try:
                notes = Performance.parse(self.notes)
            except WavegenError as error:
                raise FieldError("notes", str(error)) from None
        field = "notes" if self.upload is None else "upload"
        if not 0 < notes.seconds <= SECONDS:
            raise FieldError(field, f"expected notes of at most {SECONDS} seconds, got {notes.seconds:.1f}")
        try:
            model.network.local.of_notes([notes], round(notes.seconds * model.sample_rate))
        except WavegenError as error:
            raise FieldError(field, str(error)) from None
        return lambda job: _stream(job, model, notes=notes, **self.options())


class Generate(Task):
    """New audio, or what follows an uploaded recording."""

    task: Literal["generate"]
    seconds: Length = 3.0
    upload: str | None = Field(None, max_length=64, description="of a recording that is continued")

    @classmethod
    def fits(cls, model: Any) -> bool:
        """See ``Task``."""
        free = isinstance(model, AudioGenerator) and model.network.local is None
        return free or isinstance(model, MaskedGenerator)

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        prompt = None if self.upload is None else _audio(uploads, self.upload)
        options = self.options() | {"prompt": prompt}
        if isinstance(model, AudioGenerator):
            return lambda job: _stream(job, model, self.seconds, **options)
        return lambda job: _clips(job, model.generate(self.seconds, progress=job.progress, **options))


class _Change(Task):
    """What changes an uploaded recording have in common: they are for masked models."""

    upload: str = Field(max_length=64, description="of a recording")

    @classmethod
    def fits(cls, model: Any) -> bool:
        """See ``Task``."""
        return isinstance(model, MaskedGenerator)


class Inpaint(_Change):
    """A span of an uploaded recording, drawn anew; all else stays as it is."""

    task: Literal["inpaint"]
    first: float = Field(ge=0, le=SECONDS, description="second at which the span begins")
    last: float = Field(gt=0, le=SECONDS, description="second at which it ends")

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        audio = _audio(uploads, self.upload)
        if not self.first < self.last <= audio.duration:
            raise FieldError(
                "last", f"expected first < last <= {audio.duration:.3f}, got {self.first} and {self.last}"
            )
        span = [(self.first, self.last)]
        return lambda job: _clips(job, model.inpaint(audio, span, progress=job.progress, **self.options()))


class Vary(_Change):
    """An uploaded recording with a share of its frames drawn anew."""

    task: Literal["vary"]
    strength: float = Field(0.3, ge=0, le=1, description="the share")

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        audio = _audio(uploads, self.upload)
        return lambda job: _clips(
            job, model.vary(audio, self.strength, progress=job.progress, **self.options())
        )


class Compose(Task):
    """New notes, or what follows an uploaded MIDI file."""

    task: Literal["compose"]
    length: int = Field(128, ge=1, le=2048, description="steps of a grid, or notes of a codec of events")
    upload: str | None = Field(None, max_length=64, description="of a MIDI file that is continued")

    @classmethod
    def fits(cls, model: Any) -> bool:
        """See ``Task``."""
        return isinstance(model, NoteGenerator) and not isinstance(model.network, SourceModel)

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        prompt = None if self.upload is None else _score(uploads, self.upload)
        if isinstance(model, WindowGenerator) and self.length > model.steps:
            raise FieldError("length", f"expected at most {model.steps}, a window, got {self.length}")
        options = self.options() | {"prompt": prompt}
        return lambda job: _scores(job, model.generate(self.length, progress=job.progress, **options))


class Harmonise(Task):
    """The other voices to an uploaded melody, which stays as it is."""

    task: Literal["harmonise"]
    upload: str = Field(max_length=64, description="of a MIDI file with the melody")
    voice: int = Field(0, ge=0, le=15, description="which voice the melody is; 0 is the highest")

    @classmethod
    def fits(cls, model: Any) -> bool:
        """See ``Task``."""
        if not isinstance(model, NoteGenerator) or isinstance(model, WindowGenerator):
            return False
        writes = model.masked or isinstance(model.network, SourceModel)
        return writes and isinstance(model.codec.plain, NoteGrid)

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        score, options = _score(uploads, self.upload), self.options() | {"voice": self.voice}
        return lambda job: _scores(job, model.harmonise(score, progress=job.progress, **options))


class Remix(Task):
    """An uploaded piece with a share of its notes drawn anew."""

    task: Literal["remix"]
    upload: str = Field(max_length=64, description="of a MIDI file")
    share: float = Field(0.3, ge=0, le=1, description="of its notes")
    what: Literal["notes", "pitches", "durations"] = Field("notes", description="what of them is changed")

    @classmethod
    def fits(cls, model: Any) -> bool:
        """See ``Task``."""
        return isinstance(model, NoteGenerator) and model.masked

    def prepared(self, model: Any, uploads: Mapping[str, Upload]) -> Callable[[Job], None]:
        """See ``Task``."""
        self.check_labels(model)
        score, options = _score(uploads, self.upload), self.options()
        return lambda job: _scores(
            job, model.remix(score, self.share, self.what, progress=job.progress, **options)
        )


AnyTask = Annotated[
    Play | Generate | Inpaint | Vary | Compose | Harmonise | Remix, Field(discriminator="task")
]
TASKS: tuple[type[Task], ...] = get_args(get_args(AnyTask)[0])
"""All of them; a model's are those that fit it."""


def name_of(task: type[Task]) -> str:
    """The name of a task, as its form has it."""
    return str(get_args(task.model_fields["task"].annotation)[0])


def _score(uploads: Mapping[str, Upload], name: str) -> Score:
    upload = uploads.get(name)
    if upload is None or upload.score is None:
        raise FieldError("upload", "expected an uploaded MIDI file of this session; upload it again")
    return upload.score


def _audio(uploads: Mapping[str, Upload], name: str) -> Audio:
    upload = uploads.get(name)
    if upload is None or upload.audio is None:
        raise FieldError("upload", "expected an uploaded recording of this session; upload it again")
    return upload.audio


def _stream(job: Job, model: AudioGenerator, seconds: float | None = None, **options: Any) -> None:
    for block in model.stream(seconds, chunk=model.sample_rate // 20, progress=job.progress, **options):
        job.add(block)


def _clips(job: Job, clips: list[Audio]) -> None:
    for number, clip in enumerate(clips):
        job.files[f"{number}.wav"] = wav_bytes(clip.to_pcm16(), clip.sample_rate)


def _scores(job: Job, scores: list[Score]) -> None:
    for number, score in enumerate(scores):
        job.files[f"{number}.mid"] = midi_bytes(score)
