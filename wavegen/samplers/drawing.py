"""The one way from a trained model to tokens: what is asked for, completed by the experiment's own settings.

What training writes as samples and what a generator returns are drawn here, so that they are the same for the same
weights and the same seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from wavegen.codecs.base import AudioCodec, Codec
from wavegen.codecs.notes.base import NoteCodec
from wavegen.codecs.notes.choice import allowed_values, by_field
from wavegen.config import Config
from wavegen.errors import WavegenError, require_least, require_share
from wavegen.kernels import native
from wavegen.models.base import CausalModel, Choice, LatentModel, MaskedModel, SourceModel
from wavegen.networks.base import with_parameters
from wavegen.networks.initial import memory_of_host
from wavegen.samplers.autoregressive import Stepper
from wavegen.samplers.masked import Filling, filling_of, generate_long, passes_of
from wavegen.stopping import ProgressCallback, Stopped, followed, silent
from wavegen.types import Features, Labels, Tokens


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn; None is the experiment's own. A field that a model cannot use is refused.

    Attributes:
        temperature: divides the logits: below 1 calmer, above 1 wilder, 0 always the likeliest token. Several numbers
            are for the codec's fields in turn, or, of events, by name: ``{"pitch": 1.1, "duration": 0.8}``; fields
            that are not named have the experiment's own.
        top_k: draws among the k likeliest tokens; 0 is all. For causal models with a softmax.
        top_p: draws among the likeliest tokens that together have this probability, in (0, 1]; 1 is all.
        passes: of a masked model: of each codebook, the last number for all further ones; or one number for all.
        schedule: of a masked model: of the share that stays masked.
        order: of a masked model: "confidence" keeps the surest tokens of a pass; "random" keeps random ones, which with
            one token a pass draws from what ``bound`` measures.
        noise: of a masked model: on the confidence at first; 0 always keeps the likeliest tokens.
        guidance: of a masked model with labels: how far they are exaggerated at first; 1 is not at all.
        typical: of a masked model: draws among the most typical tokens that together have this probability; 1 is all.
        instruments: of notes as events: the only ones that play, as ``("piano", "bass")``: families of General MIDI
            (``wavegen.codecs.notes.choice.FAMILIES``) and "drums"; none is all.
        pitches: of notes: the lowest and the highest MIDI number, of drums too; None is all.

    Example:
        >>> from wavegen import Drawing
        >>> Drawing(temperature=0.7, top_p=0.95).top_k is None
        True
    """

    temperature: float | tuple[float, ...] | Mapping[str, float] | None = None
    top_k: int | None = None
    top_p: float | None = None
    passes: int | tuple[int, ...] | None = None
    schedule: Literal["cosine", "linear", "square", "cubic"] | None = None
    order: Literal["confidence", "random"] | None = None
    noise: float | None = None
    guidance: float | None = None
    typical: float | None = None
    instruments: tuple[str, ...] = ()
    pitches: tuple[int, int] | None = None


USUAL = Drawing()
"""The experiment's own settings throughout."""

SAMPLES, FRAMES = 320, 64
"""Sizes of a block, which is drawn at once: of single samples of audio, and of other frames, which take longer."""

_MASKED = ("passes", "schedule", "order", "noise", "guidance", "typical")


@dataclass(frozen=True)
class Sampler:
    """A trained model of tokens, drawn from as its experiment says unless a ``Drawing`` says otherwise.

    Attributes:
        config: of the experiment.
        graph: structure of the model.
        params: its weights.
        codec: of its tokens.
    """

    config: Config
    graph: nnx.GraphDef
    params: PyTree
    codec: Codec

    @cached_property
    def network(self) -> Any:
        """The model itself, to ask what it can do."""
        return with_parameters(self.graph, self.params)

    @property
    def draws_freely(self) -> bool:
        """Whether the model needs nothing but labels to draw from: no source, no local condition."""
        network = self.network
        return not isinstance(network, SourceModel) and network.local is None

    @property
    def window(self) -> int:
        """Frames that a masked model reads at once: those of its training."""
        return max(-(-self.config.data.crop // self.codec.hop_length), 2)

    def draw(
        self,
        frames: int,
        seed: int,
        *,
        count: int = 1,
        drawing: Drawing = USUAL,
        prompt: Tokens | None = None,
        labels: Labels | None = None,
        features: Features | None = None,
        progress: ProgressCallback = silent,
        partial: bool = False,
    ) -> Int[Array, "B drawn K"]:
        """Draws what follows a prompt, ``[count, frames, K]``, by a model of any kind.

        Args:
            frames: that are drawn.
            seed: the same seed gives the same tokens.
            count: clips side by side.
            drawing: how tokens are drawn.
            prompt: what every clip begins with, ``[count, N, K]``; it is not returned.
            labels: of each clip, for models with labels.
            features: of each clip, for models with local conditions or a source. A ``LatentModel`` without them draws
                latents from its prior.
            progress: called for each block of a causal model, and each pass of a masked one.
            partial: return the frames so far of a causal model where ``progress`` raises ``Stopped``; they are frames
                of the plain codec.

        Raises:
            Stopped: ``progress`` raised it, and there are no such frames.
            WavegenError: a setting is out of range, or is one that this model cannot use.
        """
        self.expect_room(count, frames)
        if isinstance(self.network, MaskedModel):
            gap = jnp.full((count, frames, self.codec.codebooks), self.codec.vocab_size, jnp.int32)
            there = 0 if prompt is None else prompt.shape[1]
            tokens = gap if prompt is None else jnp.concatenate([prompt, gap], axis=1)
            filled = self.fill(tokens, seed, drawing=drawing, labels=labels, progress=progress)
            return filled[:, there:]
        if isinstance(self.network, LatentModel) and features is None:
            features = self.network.prior(jax.random.key(seed), count)
        stepper = self.stepper(count, drawing, labels)
        blocks = stepper.stream(frames, jax.random.key(seed), prompt=prompt, features=features)
        drawn = np.concatenate(list(followed(blocks, frames, progress)), axis=1)
        if drawn.shape[1] < frames:
            whole = drawn.shape[1] - drawn.shape[1] % self.codec.interleaving
            if not partial or not whole:
                raise Stopped
            drawn = drawn[:, :whole]
        return jax.device_put(drawn)

    def stepper(
        self,
        count: int = 1,
        drawing: Drawing = USUAL,
        labels: Labels | None = None,
        implementation: str | None = None,
    ) -> Stepper:
        """What draws from a causal model block by block.

        Args:
            count: see ``draw``.
            drawing: see ``draw``.
            labels: see ``draw``.
            implementation: of the kernel, by name; None is the best one here.

        Raises:
            WavegenError: see ``draw``.
        """
        of_samples = isinstance(self.codec, AudioCodec) and self.codec.hop_length == 1
        choice = self.choice(drawing)
        device = self.network.sampling_device(count, choice, implementation)
        return Stepper(
            self.graph,
            self.params if device is None else self._on_host,
            SAMPLES if of_samples else FRAMES,
            count,
            choice,
            labels,
            implementation,
            device,
        )

    @cached_property
    def _on_host(self) -> PyTree:
        """The weights in the host's memory, copied once."""
        return jax.device_put(self.params, native.host())

    def fill(
        self,
        tokens: Tokens,
        seed: int,
        *,
        drawing: Drawing = USUAL,
        labels: Labels | None = None,
        narrower: Bool[np.ndarray, " V"] | None = None,
        progress: ProgressCallback = silent,
    ) -> Tokens:
        """Fills the masked tokens of clips by a masked model.

        Args:
            tokens: ``[count, N, K]``; ``vocab_size`` where they are to be drawn.
            seed: see ``draw``.
            drawing: see ``draw``.
            labels: see ``draw``.
            narrower: the only values that what is drawn may take; None is all that the codec allows.
            progress: called for each pass.

        Raises:
            Stopped: ``progress`` raised it.
            WavegenError: see ``draw``.
        """
        filling = self.filling(drawing)._replace(choice=self.choice(drawing, narrower))
        return generate_long(
            self.graph,
            self.params,
            tokens,
            row_keys(seed, len(tokens)),
            filling,
            window=self.window,
            period=self.codec.period,
            labels=labels,
            progress=progress,
        )

    def expect_room(self, count: int, frames: int) -> None:
        """Checks that clips of so many frames fit into the memory of this machine when all are drawn.

        This is a lower bound: of their tokens and, for codecs of audio, of their samples.

        Raises:
            WavegenError: they do not fit.
        """
        needed, there = (
            4 * count * frames * max(2 * self.codec.codebooks, self.codec.hop_length),
            memory_of_host(),
        )
        if needed > there:
            raise WavegenError(
                f"{count:,} x {frames:,} frames of tokens need {needed / 2**30:,.1f} GiB or more, and there are "
                f"{there / 2**30:,.1f}; generate fewer clips, or shorter ones"
            )

    def choice(self, drawing: Drawing = USUAL, narrower: Bool[np.ndarray, " V"] | None = None) -> Choice:
        """How a token is drawn from its distribution.

        Args:
            drawing: what is asked for.
            narrower: see ``fill``.

        Raises:
            WavegenError: see ``draw``.
        """
        own = self.config.sampling
        top_k = own.top_k if drawing.top_k is None else drawing.top_k
        top_p = own.top_p if drawing.top_p is None else drawing.top_p
        require_least(top_k=(top_k, 0))
        require_share("top_p", top_p)
        if isinstance(self.network, MaskedModel):
            if top_k:
                raise WavegenError("a masked model draws with top_p; leave top_k out")
        else:
            self._refuse_passes(drawing)
            if (top_k or top_p < 1) and not self.network.cuts_tails:
                raise WavegenError(
                    "top_k and top_p need a softmax head, this model has a mixture; use temperature"
                )
        allowed = self._allowed(drawing)
        if narrower is not None:
            allowed = narrower[None] if allowed is None else allowed & narrower[None]
        return Choice(
            self._temperature(drawing.temperature),
            top_k,
            top_p,
            None if allowed is None else jnp.asarray(allowed),
        )

    def filling(self, drawing: Drawing = USUAL) -> Filling:
        """How a masked model fills tokens, but for the choice of each.

        Raises:
            WavegenError: see ``draw``.
        """
        own = filling_of(self.config.sampling, self.codec.codebooks)
        guidance = own.guidance if drawing.guidance is None else (drawing.guidance, 1.0)
        if guidance != (1.0, 1.0) and not self.config.model.label_fields:
            raise WavegenError("guidance needs a model with labels, this one has none; leave guidance out")
        passes = own.passes if drawing.passes is None else drawing.passes
        return own._replace(
            passes=passes_of(passes, self.codec.codebooks) if isinstance(passes, tuple) else passes,
            schedule=drawing.schedule or own.schedule,
            order=drawing.order or own.order,
            noise=own.noise if drawing.noise is None else drawing.noise,
            guidance=guidance,
            typical=1.0 if drawing.typical is None else drawing.typical,
        )

    def _refuse_passes(self, drawing: Drawing) -> None:
        assert isinstance(self.network, CausalModel)
        for name in _MASKED:
            if getattr(drawing, name) is not None:
                raise WavegenError(
                    f"{name} is a setting of masked models, got {getattr(drawing, name)} for "
                    f"model.kind={self.config.model.kind}; leave it out"
                )

    def _allowed(self, drawing: Drawing) -> Bool[np.ndarray, "places V"] | None:
        if isinstance(self.codec, NoteCodec):
            return allowed_values(self.codec, drawing.instruments, drawing.pitches)
        if drawing.instruments or drawing.pitches is not None:
            raise WavegenError("instruments and pitches are of models of notes; leave them out")
        return self.codec.allowed

    def _temperature(
        self, given: float | tuple[float, ...] | Mapping[str, float] | None
    ) -> Float[Array, "*fields"]:
        own = self.config.sampling.temperature
        if isinstance(given, Mapping):
            given = by_field(self.codec, given, own)
        asked = own if given is None else given
        values: Sequence[float] = asked if isinstance(asked, tuple) else (asked,)
        for value in values:
            require_least(temperature=(float(value), 0))
        if len(values) not in (1, self.codec.interleaving):
            raise WavegenError(
                f"expected 1 or {self.codec.interleaving} temperatures, one per field, got {len(values)}"
            )
        return jnp.asarray(values if len(values) > 1 else values[0], jnp.float32)


def row_keys(seed: int, count: int, purpose: int = 0) -> Key[Array, "B"]:
    """A key for each clip of a batch; other purposes, such as choosing what is masked, have other keys."""
    key = jax.random.fold_in(jax.random.key(seed), purpose)
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count))
