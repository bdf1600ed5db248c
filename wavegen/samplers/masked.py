"""Filling masked tokens in a few passes, the surest first (Chang et al. 2022, MaskGIT, arXiv:2202.04200).

The codebooks are filled one after the other (Borsos et al. 2023, SoundStorm). A pass draws all masked tokens of its
codebook at once, keeps those of the highest confidence, and masks the others again:

    confidence = ln p(token) + noise (1 - s / S) Gumbel,    s = 1..S the pass,    floor(u schedule(s / S)) stay masked

where u tokens of the clip were masked at first. At least one token is found in every pass until none is masked.

The surest first are not drawn from what ``order_agnostic_bound`` measures: they are less diverse, also where the model
is perfect. With ``order="random"`` a pass keeps random ones; with as many passes as tokens are masked that is ancestral
sampling in a random order, of which the bound is the likelihood.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from wavegen.config.training import SamplingConfig
from wavegen.errors import WavegenError
from wavegen.kernels.draw import choose_token
from wavegen.models.base import Choice, MaskedModel
from wavegen.models.masks import keep_allowed, lowest
from wavegen.networks.base import with_parameters
from wavegen.samplers.typical import keep_typical
from wavegen.stopping import ProgressCallback, silent
from wavegen.types import Labels, Tokens

SCHEDULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cosine": lambda t: np.cos(np.pi / 2 * t),
    "linear": lambda t: 1 - t,
    "square": lambda t: 1 - t**2,
    "cubic": lambda t: 1 - t**3,
}
"""The share of tokens that is still masked after a share t of the passes: from 1 to 0."""


class Filling(NamedTuple):
    """How masked tokens are filled.

    Attributes:
        passes: of each codebook, or one number for all.
        schedule: see ``SCHEDULES``.
        choice: how a token is drawn from its distribution; places in a period are counted from the clip's first frame.
        typical: draws among the most typical tokens that together have this probability; 1 is all.
        order: whether a pass keeps the tokens of the highest confidence, or random ones.
        noise: of the confidence at first; it falls linearly. 0 always keeps the likeliest, which makes dull clips.
        guidance: how far labels are exaggerated while all is masked, and when none is any more:
            ``free + guidance (labelled - free)``. 1 is not at all, and saves half of the work.
        span: frames that are kept or masked together, by the highest confidence among them; the count of masked
            tokens may cut one of them.
    """

    passes: int | tuple[int, ...] = 12
    schedule: Literal["cosine", "linear", "square", "cubic"] = "cosine"
    choice: Choice = Choice()
    typical: float = 1.0
    order: Literal["confidence", "random"] = "confidence"
    noise: float = 4.5
    guidance: tuple[float, float] = (1.0, 1.0)
    span: int = 1


_USUAL = Filling()


def filling_of(config: SamplingConfig, codebooks: int) -> Filling:
    """How an experiment says that tokens of so many codebooks are filled."""
    own = config.masked
    return Filling(
        passes=passes_of(own.passes, codebooks),
        schedule=own.schedule,
        order=own.order,
        choice=Choice(config.temperature),
        noise=own.noise,
        guidance=(own.guidance, 1.0),
    )


def passes_of(passes: tuple[int, ...], codebooks: int) -> tuple[int, ...]:
    """As many numbers as codebooks: the last one serves all further ones."""
    return (*passes, *[passes[-1]] * codebooks)[:codebooks]


class Plan(NamedTuple):
    """What each pass does: one entry a pass, those of the first codebook first."""

    number: Int[np.ndarray, "*passes"]
    level: Int[np.ndarray, "*passes"]
    share: Float[np.ndarray, "*passes"]  # of the tokens stay masked
    later: Int[np.ndarray, "*passes"]  # passes of the same codebook to come
    noise: Float[np.ndarray, "*passes"]
    guidance: Float[np.ndarray, "*passes"]
    temperature: Float[np.ndarray, "*passes places"]


class Cut(NamedTuple):
    """The settings that change the program, not only its numbers; see ``Filling`` and ``Choice``."""

    top_k: int
    top_p: float
    typical: float
    span: int
    guided: bool
    random: bool


def fill(
    graph: nnx.GraphDef,
    params: PyTree,
    tokens: Tokens,
    keys: Key[Array, "B"],
    filling: Filling = _USUAL,
    *,
    labels: Labels | None = None,
    valid: Bool[Array, "B N"] | None = None,
    progress: ProgressCallback = silent,
) -> Tokens:
    """Fills the masked tokens of clips.

    The random numbers of a clip depend on its key, the pass and the frame alone: a row of a batch gives what the same
    clip gives alone with the same key.

    Args:
        graph: of the masked model, from ``parameters``.
        params: of the model.
        tokens: what is known, and ``vocab_size`` where it is to be filled; see ``wavegen.samplers.prompts``.
        keys: one for each clip.
        filling: how.
        labels: for a model with labels; -1 is unknown.
        valid: frames that belong to the clips; all others are returned as they are. None is all.
        progress: called for each pass.

    Returns:
        The clips with nothing masked; what was known is unchanged.

    Raises:
        WavegenError: a setting is out of range, or guidance is asked of a model without labels.
        Stopped: ``progress`` raised it.
    """
    plan, cut = make_plan(filling, tokens.shape[2])
    if cut.guided and labels is None:
        raise WavegenError(
            f"guidance {filling.guidance} needs labels to be guided by, got none; give labels or leave it out"
        )
    # On the host: JAX would compile each length.
    there = np.ones(tokens.shape[:2], bool) if valid is None else np.asarray(valid)
    masked = np.asarray(tokens) == with_parameters(graph, params).vocab_size
    unknown = np.sum(masked & there[..., None], axis=1, dtype=np.int32)
    passes = [Plan(*(column[number] for column in plan)) for number in range(len(plan.number))]
    progress("drawing", 0, len(passes))
    for done, now in enumerate(passes, start=1):
        tokens = _pass(graph, params, tokens, keys, unknown, labels, there, now, cut, filling.choice.allowed)
        if progress is not silent:
            jax.block_until_ready(tokens)
            progress("drawing", done, len(passes))
    return tokens


@partial(jax.jit, static_argnames=("graph", "cut"))
def _pass(
    graph: nnx.GraphDef,
    params: PyTree,
    tokens: Tokens,
    keys: Key[Array, "B"],
    unknown: Int[Array, "B K"],
    labels: Labels | None,
    valid: Bool[Array, "B N"],
    now: Plan,
    cut: Cut,
    allowed: Bool[Array, "places V"] | None,
) -> Tokens:
    model = with_parameters(graph, params)
    return refine(model, tokens, keys, unknown, labels, valid, now, cut, allowed)


def refine(
    model: MaskedModel,
    tokens: Tokens,
    keys: Key[Array, "B"],
    unknown: Int[Array, "B K"],
    labels: Labels | None,
    valid: Bool[Array, "B N"],
    now: Plan,
    cut: Cut,
    allowed: Bool[Array, "places V"] | None = None,
) -> Tokens:
    """One pass; ``unknown`` counts what was masked before the first, ``now`` is one entry of a plan."""
    frames = tokens.shape[1]
    column = tokens[:, :, now.level]
    masked = (column == model.vocab_size) & valid

    def find(column: Int[Array, "B N"]) -> Int[Array, "B N"]:
        logits = keep_allowed(_guided_logits(model, tokens, labels, valid, now, cut.guided), allowed)
        uniform = jax.vmap(_uniforms, (0, None, None))(keys, jnp.asarray(now.number), frames)
        chosen = _choose(logits, uniform[..., 0], jnp.asarray(now.temperature), cut)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[..., None], axis=2)[..., 0]
        gumbel = -jnp.log(-jnp.log(uniform[..., 1]))
        kept_by = gumbel if cut.random else log_p + now.noise * gumbel
        confidence = jnp.where(masked, kept_by, -jnp.inf)
        left = jnp.floor(now.share * unknown[:, now.level]).astype(jnp.int32)
        # At least one for each later pass, so that no pass is idle; and fewer than now.
        left = jnp.minimum(jnp.maximum(left, now.later), jnp.sum(masked, axis=1) - 1)
        again = lowest(_highest_of_span(confidence, cut.span), masked, left)
        return jnp.where(masked & ~again, chosen.astype(column.dtype), column)

    # Codebooks that the prompt gives, or that are done, cost nothing.
    found = lax.cond(jnp.any(masked), find, lambda column: column, column)
    return tokens.at[:, :, now.level].set(found)


def _guided_logits(
    model: MaskedModel,
    tokens: Tokens,
    labels: Labels | None,
    valid: Bool[Array, "B N"],
    now: Plan,
    guided: bool,
) -> Float[Array, "B N V"]:
    level = jnp.full(len(tokens), now.level)
    if not guided or labels is None:
        return model.level_logits(tokens, level, labels, valid=valid)
    both = model.level_logits(
        jnp.concatenate([tokens, tokens]),
        jnp.concatenate([level, level]),
        jnp.concatenate([labels, jnp.full_like(labels, -1)]),
        valid=jnp.concatenate([valid, valid]),
    )
    labelled, free = jnp.split(both, 2)
    return free + now.guidance * (labelled - free)


def _choose(
    logits: Float[Array, "B N V"], uniform: Float[Array, "B N"], temperature: Float[Array, "places"], cut: Cut
) -> Int[Array, "B N"]:
    flat = logits.reshape(-1, logits.shape[2])
    if cut.typical < 1:
        flat = keep_typical(flat, cut.typical)
    # None saves sorting.
    top_k, top_p = cut.top_k or None, cut.top_p if cut.top_p < 1 else None
    places = jnp.arange(uniform.shape[1]) % len(temperature)

    def one(logits: Float[Array, "V"], uniform: Float[Array, ""], temperature: Float[Array, ""]) -> Array:
        return choose_token(logits[None], uniform[None], temperature, top_k, top_p)[0]

    each = jnp.tile(temperature[places], len(uniform))
    return jax.vmap(one)(flat, uniform.reshape(-1), each).reshape(uniform.shape)


def make_plan(filling: Filling, codebooks: int) -> tuple[Plan, Cut]:
    """What each pass does.

    Raises:
        WavegenError: a setting is out of range.
    """
    given, choice = filling.passes, filling.choice
    temperature = np.atleast_1d(np.asarray(choice.temperature, np.float32))
    passes = (given,) * codebooks if isinstance(given, int) else given
    if len(passes) != codebooks or min(passes) < 1:
        raise WavegenError(
            f"expected at least 1 pass for each of {codebooks} codebooks, got {given}; give one number for all"
        )
    for name, value, good, range_ in (
        ("order", filling.order, filling.order in ("confidence", "random"), "confidence or random"),
        ("schedule", filling.schedule, filling.schedule in SCHEDULES, "one of " + ", ".join(SCHEDULES)),
        ("typical", filling.typical, 0 < filling.typical <= 1, "in (0, 1]"),
        ("top_p", choice.top_p, 0 < choice.top_p <= 1, "in (0, 1]"),
        ("top_k", choice.top_k, choice.top_k >= 0, "0 or more"),
        ("span", filling.span, filling.span >= 1, "1 or more"),
        ("noise", filling.noise, filling.noise >= 0, "0 or more"),
        ("temperature", choice.temperature, bool((temperature >= 0).all()), "0 or more"),
    ):
        if not good:
            raise WavegenError(f"{name} is {range_}, got {value!r}; leave it out for the usual")
    count = np.concatenate([np.full(n, n) for n in passes])
    step = np.concatenate([np.arange(1, n + 1) for n in passes])
    schedule = SCHEDULES[filling.schedule]
    first, last = filling.guidance
    masked = schedule((step - 1) / count)
    plan = Plan(
        number=np.arange(len(step), dtype=np.int32),
        level=np.repeat(np.arange(codebooks, dtype=np.int32), passes),
        share=np.asarray(schedule(step / count), np.float32),
        later=np.asarray(count - step, np.int32),
        noise=np.asarray(filling.noise * (1 - step / count), np.float32),
        guidance=np.asarray(masked * first + (1 - masked) * last, np.float32),
        temperature=np.tile(temperature, (len(step), 1)),
    )
    guided = filling.guidance != (1.0, 1.0)
    random = filling.order == "random"
    return plan, Cut(choice.top_k, choice.top_p, filling.typical, filling.span, guided, random)


def _uniforms(key: Array, index: Int[Array, ""], frames: int) -> Float[Array, "N 2"]:
    """Two numbers in (0, 1) for each frame; those of a frame do not depend on how many there are."""
    return jax.random.uniform(jax.random.fold_in(key, index), (frames, 2), minval=jnp.finfo(jnp.float32).tiny)


def _highest_of_span(confidence: Float[Array, "B N"], span: int) -> Float[Array, "B N"]:
    """The highest value among the ``span`` frames that each frame stands with."""
    frames = confidence.shape[1]
    padded = jnp.pad(confidence, ((0, 0), (0, -frames % span)), constant_values=-jnp.inf)
    highest = jnp.max(padded.reshape(len(confidence), -1, span), axis=2)
    return jnp.repeat(highest, span, axis=1)[:, :frames]


def generate_long(
    graph: nnx.GraphDef,
    params: PyTree,
    tokens: Tokens,
    keys: Key[Array, "B"],
    filling: Filling = _USUAL,
    *,
    window: int,
    period: int = 1,
    labels: Labels | None = None,
    progress: ProgressCallback = silent,
) -> Tokens:
    """Fills the masked tokens of clips of any length, window by window.

    The window moves on by half; the half that it keeps is the prompt of the next. The last one ends with the clip, or
    is shorter, where it would not begin with a period.

    Args:
        graph: of the masked model.
        params: of the model.
        tokens: see ``fill``.
        keys: one for each clip; window w draws from ``fold_in(key, w)``.
        filling: how.
        window: frames that the model sees at once: those of its training; 2 or more.
        period: windows begin at multiples of it, for models that read the place in a period, and for choices that
            go by places.
        labels: see ``fill``.
        progress: see ``fill``.

    Raises:
        Stopped: see ``fill``.
        WavegenError: see ``fill``; or the window is too short to move by half.
    """
    if window < 2:
        raise WavegenError(f"expected a window of at least 2 frames, got {window}; use that of the training")
    frames = tokens.shape[1]
    window = min(window, frames)
    step = max(window // 2 // period, 1) * period
    last = -(-(frames - window) // period) * period
    windows, filled = -(-last // step) + 1, np.array(tokens)
    for index in range(windows):

        def share(what: str, done: int, total: int, before: int = index) -> None:
            progress(what, before * total + done, windows * total)

        first = min(index * step, last)
        fresh = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
        # Cut on the host and put by `device_put`: other ways compile each length.
        inside = slice(first, min(first + window, frames))
        piece = jax.device_put(filled[:, inside])
        followed = silent if progress is silent else share
        filled[:, inside] = fill(graph, params, piece, fresh, filling, labels=labels, progress=followed)
    return jax.device_put(filled)
