"""Trains a listener on labelled recordings."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from wavegen.audio import Audio
from wavegen.data.dataset import Dataset
from wavegen.errors import WavegenError, require_least
from wavegen.evaluation.embeddings.listener import Classifier, Listener, fitted

STEPS, BATCH, RATE = 1200, 64, 2e-3
LONGEST = 3.0
"""Seconds that a listener reads at most; it reads as much as nine in ten recordings have, if that is less."""


def train(
    clips: Sequence[Audio],
    labels: Sequence[str],
    *,
    field: str = "label",
    seconds: float | None = None,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Listener:
    """Trains a listener.

    Every example is a random part of a clip, or a clip at a random place in silence, up to 10 dB louder or quieter than
    it was, over white noise at -50 to -100 dB of full scale.

    Args:
        clips: recordings of one sample rate, which are mixed to mono.
        labels: the label of each.
        field: name of the label.
        seconds: length of what the listener reads; by default as long as nine in ten clips, and 3 seconds at most.
        steps: number of steps of 64 clips each.
        seed: of the weights and of the order of the clips.
        progress: called after every step with the number of steps so far and the loss in nats.

    Raises:
        WavegenError: if there are fewer than two labels, not one label per clip, or clips of several rates.
    """
    known = tuple(sorted(set(labels)))
    rates = {clip.sample_rate for clip in clips}
    if len(clips) != len(labels) or len(known) < 2:
        raise WavegenError(
            f"expected one label per clip and at least two labels, got {len(clips)} clips, {len(labels)} labels and "
            f"the values {', '.join(known) or 'none'}"
        )
    if len(rates) > 1:
        raise WavegenError(f"expected clips of one sample rate, got {sorted(rates)} Hz; resample them")
    require_least(steps=(steps, 1))
    rate = rates.pop()
    length = (
        min(float(np.quantile([clip.duration for clip in clips], 0.9)), LONGEST)
        if seconds is None
        else seconds
    )
    require_least(seconds=(length, 0.05))
    samples = round(length * rate)
    graph, params = nnx.split(Classifier(rate, len(known), nnx.Rngs(seed)))
    optimizer = optax.adamw(optax.cosine_decay_schedule(RATE, steps), weight_decay=1e-2)
    state, random = optimizer.init(params), np.random.default_rng(seed)

    @jax.jit
    def step(
        params: PyTree, state: PyTree, audio: Float[Array, "B T"], codes: Int[Array, "B"]
    ) -> tuple[PyTree, PyTree, Array]:
        def loss(params: PyTree) -> Array:
            logits = nnx.merge(graph, params)(audio)
            return optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    mono = [clip.mono() for clip in clips]
    codes = np.array([known.index(label) for label in labels])
    for done in range(steps):
        chosen = random.integers(len(clips), size=BATCH)
        audio = np.stack([fitted(mono[i], samples, random.random()) for i in chosen])
        audio = audio * 10 ** random.uniform(-0.5, 0.5, (BATCH, 1))
        audio = audio + random.normal(size=audio.shape) * 10 ** random.uniform(-5, -2.5, (BATCH, 1))
        params, state, loss = step(params, state, jnp.asarray(audio, jnp.float32), jnp.asarray(codes[chosen]))
        progress(done + 1, float(loss))
    return Listener(nnx.merge(graph, params), rate, samples, field, known)


def train_on_dataset(
    dataset: Dataset,
    field: str | None = None,
    *,
    held_out: str = "test",
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Listener:
    """Trains a listener on the train split of a prepared dataset, and measures it on another one.

    Args:
        dataset: recordings with labels.
        field: the label that is learned; None is the only one that the dataset has.
        held_out: the split that its accuracy is measured on.
        steps: see ``train``.
        seed: see ``train``.
        progress: see ``train``.

    Raises:
        WavegenError: if the dataset holds notes or does not have the label or a split, or ``field`` is None and there
            is not exactly one label.
    """
    if dataset.holds_notes:
        raise WavegenError(
            f"expected recordings in {dataset.path}, got notes; a listener is trained on audio"
        )
    if field is None and len(dataset.labels) != 1:
        raise WavegenError(
            f"expected one label in {dataset.path}, got {', '.join(dataset.labels) or 'none'}; prepare it with "
            "--label-pattern, and choose one with --label"
        )
    (column,) = dataset.label_columns([field] if field else None)
    name = list(dataset.labels)[column]

    def split(which: str) -> tuple[list[Audio], list[str]]:
        files = dataset.split(which)
        clips = [
            Audio.from_pcm16(dataset.read(files, row, 0, int(files.length[row])), dataset.sample_rate)
            for row in range(len(files))
        ]
        return clips, [dataset.labels[name][code] for code in files.labels[:, column]]

    clips, labels = split("train")
    tested, answers = split(held_out)
    listener = train(clips, labels, field=name, steps=steps, seed=seed, progress=progress)
    return replace(listener, accuracy=listener.share_understood(tested, answers), held_out=len(tested))
