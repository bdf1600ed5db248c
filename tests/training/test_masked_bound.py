"""What ``wavegen evaluate`` gives of a masked model is a bound: of a perfect one the true entropy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wavegen.codecs.base import Codecs
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config import Config
from wavegen.config.models import MaskingConfig
from wavegen.data.batches import EvaluationSource
from wavegen.models.base import MaskedModel
from wavegen.models.masking import MASKINGS, masked_token
from wavegen.networks.base import parameters
from wavegen.samplers.masked import Filling, fill
from wavegen.training.evaluate import evaluate, masked_bound
from wavegen.training.mesh import make_mesh
from wavegen.training.state import init_state
from wavegen.training.step import make_evaluation_step, make_train_step, metric_of, optimizer_of

FRAMES, VALUES, ROWS, BATCHES = 4, 3, 64, 4
CODEC = NoteGrid(1, 60, 61)
CONFIG = Config.model_validate(
    {
        "model": {"kind": "bert"},
        "codec": {"kind": "note_grid", "voices": 1, "low": 60, "high": 61, "interleave": False},
        "data": {"batch_size": ROWS},
        "optimizer": {"warmup_steps": 0},
    }
)
CLIPS = np.array(list(itertools.product(range(VALUES), repeat=FRAMES)), np.int32)


class Perfect(MaskedModel):
    """Clips of four tokens of three values, by a table of the probabilities of all of them."""

    make = None
    codebooks, vocab_size = 1, VALUES

    def __init__(self, log_p):
        self.log_p = nnx.Param(jnp.asarray(log_p))

    def flops_per_frame(self, frames):
        return 0

    def objective(self, examples, key):
        return masked_token(self, examples, key, masking=MASKINGS["levels"](MaskingConfig()))

    def __call__(self, tokens, labels=None, features=None, *, dropout_key=None, valid=None):
        return self.level_logits(tokens, None)[:, :, None]

    def level_logits(self, tokens, level, labels=None, *, dropout_key=None, valid=None):
        read = tokens[:, None, :, 0]
        possible = jnp.all((read == VALUES) | (read == CLIPS[None]), axis=2)
        weights = jnp.where(possible, jnp.exp(self.log_p[...])[None], 0)
        return jnp.log(jnp.einsum("bc,cnv->bnv", weights, jax.nn.one_hot(CLIPS, VALUES)) + 1e-9)


class Drawn(EvaluationSource):
    """Batches of clips that are drawn from the table."""

    def __init__(self, p):
        number = np.random.default_rng(0).choice(len(CLIPS), size=(BATCHES, ROWS), p=p)
        self.nats = -np.log(p)[number].mean() / FRAMES
        self.clips = CLIPS[number]

    def __len__(self):
        return BATCHES

    def batch(self, step):
        rows = {"length": np.full(ROWS, FRAMES), "context": np.zeros(ROWS, int)}
        return rows | {"tokens": self.clips[step][..., None], "labels": np.zeros((ROWS, 0), np.int32)}


@pytest.fixture(scope="module")
def made():
    p = np.random.default_rng(1).dirichlet(np.full(len(CLIPS), 0.05))
    return parameters(Perfect(np.log(p).astype(np.float32))), Drawn((p + 1e-12) / (p + 1e-12).sum())


def test_the_bound_of_a_perfect_model_is_the_truth_within_its_standard_error_and_one_mask_is_not(made):
    (graph, params), source = made
    mesh, codecs = make_mesh(), Codecs(CODEC)
    truth = source.nats / math.log(2)
    bound = masked_bound(CONFIG, graph, params, codecs, source, BATCHES, mesh, 16)
    assert 0 < bound["standard_error"] < 0.05
    assert bound["bound_bits_per_token"] == pytest.approx(truth, abs=4 * bound["standard_error"])
    step = jax.jit(make_evaluation_step(CONFIG, graph))
    figures = evaluate(CONFIG, step, params, codecs, source, BATCHES, mesh).figures
    assert "bits_per_token" not in figures
    assert figures["masked_bits_per_token"] > 1.1 * truth


@pytest.mark.parametrize(("order", "even"), [("random", True), ("confidence", False)])
def test_draws_in_random_order_are_of_what_the_bound_measures_and_those_by_confidence_are_not(order, even):
    """One token a pass of a perfect model: chi-squared per bin against its table, and the draws' own nats."""
    p = np.random.default_rng(1).dirichlet(np.ones(len(CLIPS)))
    graph, params = parameters(Perfect(np.log(p).astype(np.float32)))
    count = 20_000
    gap = jnp.full((count, FRAMES, 1), VALUES, jnp.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2), jnp.arange(count))
    drawn = np.asarray(fill(graph, params, gap, keys, Filling(passes=FRAMES, order=order, noise=1.0)))
    number = drawn[:, :, 0] @ (VALUES ** np.arange(FRAMES)[::-1])
    counts = np.bincount(number, minlength=len(CLIPS))
    chi2 = np.mean((counts - count * p)[p > 1e-3] ** 2 / (count * p)[p > 1e-3])
    assert chi2 < 1.5 if even else chi2 > 20


def test_training_curves_name_what_is_no_likelihood(made):
    """Label smoothing is a part of the loss, and of no figure that is called bits."""
    (graph, params), source = made
    assert metric_of(CONFIG)[0] == "masked_bits_per_token"
    step = jax.jit(make_train_step(CONFIG, graph))
    batch = jax.tree.map(jnp.asarray, source.batch(0))
    _, metrics = step(init_state(params, optimizer_of(CONFIG), ema=False), batch, Codecs(CODEC))
    nats = float(metrics["masked_bits_per_token"]) * math.log(2)
    # Smoothing spreads a tenth of each target over all values, some of which are impossible.
    assert float(metrics["loss"]) > nats + 0.1
