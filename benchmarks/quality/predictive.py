"""How many samples one pass of the network could yield, if the samples to come were forecast and then checked.

    WAVEGEN_THREADS=1 python benchmarks/quality/predictive.py [RUN] [--seconds 0.6]

The random numbers of a sampler are counted, not drawn in turn, so its path is a function of the seed: k - 1 tokens
can be forecast with the very numbers they will be drawn with, the network reads them in one pass, and what it draws
is kept up to and with the first token that was forecast wrong (predictive sampling: Wiggers and Hoogeboom 2020,
arXiv:2002.09928). The path stays the one of sampling one by one, and the weights are read once for several samples.

A forecast counts only when all before it were right, so forecasts from past tokens are replayed on true paths.
Two ways of turning random numbers into a token are compared. "inverse CDF" is the library's: one number, and a token
is forecast right when two cumulative sums agree to a level. "Gumbel": a number a level, the largest of
logit + number wins, which forgives a distribution that is shifted by a level or two.

The speed-up is samples kept a pass / (cost of a pass + cost of its forecasts). A pass over k samples is taken to cost
what the native sampler takes for a step of k streams, measured here; a forecast what its multiply-adds are of the
network's.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import baselines
import forecasters
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from forecasters import PASSES, STALEST, Coupling, Net, Paths, draw

import wavegen
from wavegen.kernels import wavenet_generate, wavenet_init_state
from wavegen.kernels.wavenet.forward import condition_frames, input_convolution, network
from wavegen.networks.base import with_parameters
from wavegen.notes.performance import Performance

SETTINGS = {"temperature 1": (1.0, None), "temperature 0.8, top_p 0.95": (0.8, 0.95)}
MELODIES = Path(wavegen.__file__).parent / "assets" / "melodies"


@dataclass(frozen=True)
class Options:
    """What to generate."""

    run: tyro.conf.Positional[Path | None] = None
    """A run folder, a .safetensors file or the name of a shipped model; by default the shipped instrument."""
    seconds: float = 0.6
    """Length of a clip."""
    clips: int = 8
    """Clips to replay, of each setting."""
    training_clips: int = 24
    """Clips of each setting that the learned forecasters are taught on."""
    training_steps: int = 1500
    """Steps to teach each of them."""
    integrated: int = 24
    """Samples of each clip whose forecast with the newest token integrated out is computed, the slowest of all."""
    seed: int = 0


def conditions_of(
    net: Net, samples: int, random: np.random.Generator, generator: wavegen.AudioGenerator, clips: int
):
    """Draw labels and melodies for clips: what the network is conditioned on."""
    labels = features = None
    if net.model.labels is not None:
        sizes = [len(generator.labels[field]) for field in generator.config.model.label_fields]
        labels = jnp.asarray(random.integers(sizes, size=(clips, len(sizes))), jnp.int32)
    if net.model.local is not None:
        hop, rate = generator.config.model.local.hop_length, generator.sample_rate
        melodies = [
            Performance.read(path).frames(rate, hop, 20 * rate) for path in sorted(MELODIES.glob("*.txt"))
        ]
        frames = -(-samples // hop)
        chosen = [melodies[index] for index in random.integers(len(melodies), size=clips)]
        starts = random.integers(10 * rate // hop, size=clips)
        features = jnp.asarray(np.stack([m[s : s + frames] for m, s in zip(chosen, starts, strict=True)]))
    return labels, features


def make_paths(net: Net, coupling: Coupling, setting, conditions, samples: int, clips: int, key) -> Paths:
    """Generate clips sample by sample, then run the parallel form over them for what it computes on the way."""
    model, weights, shape = net
    numbers = coupling.numbers(key, clips, samples, shape.vocab_size)

    @jax.jit
    def generate(numbers, labels, features):
        def step(carry, numbers):
            token, state = carry
            outputs, state = model.step(token[:, None], state)
            token = coupling.choose(outputs[:, 0], numbers, *setting)
            return (token, state), token

        silence = jnp.full(clips, shape.start_token, jnp.int32)
        start = (silence, model.init_state(clips, labels, features))
        return jax.lax.scan(step, start, jnp.swapaxes(numbers, 0, 1))[1].T

    @jax.jit
    def replay(tokens, labels, features):
        read = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=shape.start_token)[:, :-1]
        inputs = model.excite(features, 0, samples)
        if inputs is None:
            inputs = jnp.zeros((clips, samples, weights["residual"].shape[-1]))
        condition = model.encode(labels, features)
        rows = condition_frames(weights, condition, model.condition_hop, 0, samples)
        h = input_convolution(weights, shape, read, samples) + inputs
        logits, layer_inputs = network(weights, shape, h, rows)
        one = jnp.eye(weights["hidden"].shape[0])
        plain = {"hidden": one, "hidden_bias": one[0] * 0, "output": one, "output_bias": one[0] * 0}
        skip = network({**weights, **plain}, shape, h, rows)[0]
        taps = weights["dilated"].shape[1] - 1
        padded = [
            jnp.pad(x, ((0, 0), (taps * d, 0), (0, 0)))
            for x, d in zip(layer_inputs, shape.dilations, strict=True)
        ]
        states = {n: layer_inputs[n] for n in depths(net)}
        return Paths(tokens, logits, numbers, read, inputs, rows, padded, skip, states)

    paths = replay(generate(numbers, *conditions), *conditions)
    again = draw(coupling.choose, paths.logits, numbers, *setting)
    equal = float((again == paths.tokens).mean())
    if equal < 0.999:
        raise SystemExit(f"the replayed network draws other tokens than the sampler: {equal:.2%} equal")
    return paths


def depths(net: Net) -> tuple[int, int]:
    """How many of the first layers the two drafts run."""
    return 2, len(net.shape.dilations) // 2


def entropy(paths: Paths, setting) -> float:
    """The mean entropy of what tokens are drawn from at this temperature, before top_p cuts it, in bits."""
    log_p = jax.nn.log_softmax(paths.logits / setting[0])
    return float(-(jnp.exp(log_p) * log_p).sum(-1).mean() / jnp.log(2))


def kept_a_pass(match: np.ndarray, k: int) -> float:
    """Walk [B, T] or [J, B, T] matches: samples kept a pass of k. J: forecasts of the pass made before."""
    match = match if match.ndim == 3 else np.broadcast_to(match, (k - 1, *match.shape))
    clips, samples = match.shape[1:]
    length = samples - k + 1
    ahead = np.stack([match[j, :, j : j + length] for j in range(k - 1)])
    kept = 1 + np.cumprod(ahead, axis=0).sum(axis=0)
    start, passes, done = np.zeros(clips, np.int64), 0, 0
    while (active := start < length).any():
        step = np.where(active, kept[np.arange(clips), np.minimum(start, length - 1)], 0)
        start, passes, done = start + step, passes + active.sum(), done + step.sum()
    return done / passes


def pass_costs(net: Net, precision: str, rounds: int = 15, steps: int = 1500) -> dict[int, float]:
    """Time of a step of k streams over that of one, the best of interleaved rounds."""
    weights = {name: w.astype(precision) for name, w in net.weights.items()}

    def run(k: int) -> None:
        state = wavenet_init_state(weights, net.shape, k)
        options = {}
        if "condition" in weights:
            options = {"condition": jnp.zeros((k, 1, weights["condition"].shape[1])), "condition_hop": steps}
        wavenet_generate(
            weights, net.shape, state, steps, key=jax.random.key(0), implementation="cpu", **options
        )[0].block_until_ready()

    best = dict.fromkeys((1, *PASSES), np.inf)
    for turn in range(rounds + 1):
        for k in best:
            start = time.perf_counter()
            run(k)
            if turn:  # the first compiles
                best[k] = min(best[k], time.perf_counter() - start)
    # Where a step of several streams is quicker than that of one, one by one could run so too.
    single = min(best.values())
    ratios = {k: best[k] / single for k in PASSES}
    priced = ", ".join(f"{ratio:.2f}" for ratio in ratios.values())
    print(f"{precision}: {steps / single / 1e3:.1f} kHz one by one; passes of {PASSES} samples cost {priced}")
    return ratios


def integrated_match(net: Net, coupling: Coupling, setting, paths: Paths, samples: int) -> np.ndarray:
    """Which forecasts are right where the network's own distribution lacks the newest token, [B, samples]."""
    clips, length = paths.tokens.shape
    starts = np.linspace(1, length - samples, clips).astype(int)
    rows = []
    for clip, start in enumerate(starts):
        at = jnp.arange(start, start + samples)
        logits = jax.lax.map(
            lambda t, clip=clip: forecasters.integrated(net.weights, net.shape, paths, clip, t, setting[0]),
            at,
        )
        rows.append(
            draw(coupling.choose, logits, paths.numbers[clip, at], *setting) == paths.tokens[clip, at]
        )
    return np.stack(rows)


def iterated(net: Net, coupling: Coupling, setting, paths: Paths, k: int, samples: int = 300) -> float:
    """Samples kept a pass when forecasts are what the pass before drew, over a stretch of every clip."""
    clips, length = paths.tokens.shape
    first = jnp.asarray(np.linspace(0, max(length - samples - k, 0), clips), jnp.int32)
    last = jnp.minimum(first + samples, length - k)
    passes, kept = forecasters.iterate(
        net.weights, net.shape, coupling.choose, paths, first, last, *setting, k=k
    )
    return float(kept / passes)


def main(options: Options) -> None:
    generator = wavegen.load(options.run)
    if generator.codec != baselines.CODEC or "embedding" not in generator.params:
        raise SystemExit("expected a WaveNet with an embedding over 256 mu-law codes")
    model = with_parameters(generator.graph, generator.params)
    net = Net(model, model.weights(), model.shape)
    levels = net.shape.vocab_size
    samples, random = round(options.seconds * generator.sample_rate), np.random.default_rng(options.seed)
    print(
        f"{options.run or generator.config.name}: {net.multiplications:,} multiply-adds a sample", flush=True
    )
    costs = {precision: pass_costs(net, precision) for precision in ("float32", "bfloat16")}

    keys = iter(jax.random.split(jax.random.key(options.seed), 100))
    taught = []
    for setting in SETTINGS.values():
        conditions = conditions_of(net, samples, random, generator, options.training_clips)
        paths = make_paths(
            net,
            forecasters.COUPLINGS["inverse CDF"],
            setting,
            conditions,
            samples,
            options.training_clips,
            next(keys),
        )
        taught.append(paths._replace(layer_inputs=[], rows=None, numbers=None))
    heads = {
        "head, last 32 tokens": {},
        "head, and last checked skip sum": {"skip": True},
    } | {f"head, both, and the first {n} layers": {"skip": True, "layers": n} for n in depths(net)}
    for name, sees in heads.items():
        print(name, flush=True)
        head = forecasters.make_head(net, next(keys), **sees)
        heads[name] = forecasters.teach(head, taught, options.training_steps, options.seed)
    del taught

    for setting_name, setting in SETTINGS.items():
        for coupling_name, coupling in forecasters.COUPLINGS.items():
            conditions = conditions_of(net, samples, random, generator, options.clips)
            paths = make_paths(net, coupling, setting, conditions, samples, options.clips, next(keys))
            lag_1, lag_2 = (forecasters.shifted(paths.tokens, lag, net.shape.start_token) for lag in (1, 2))

            def right(logits, paths=paths, coupling=coupling, setting=setting):
                return np.asarray(draw(coupling.choose, logits, paths.numbers, *setting) == paths.tokens)

            laplace = np.stack([forecasters.linear_prediction(clip) for clip in np.asarray(paths.tokens)])
            line = jnp.clip(2 * lag_1 - lag_2, 0, levels - 1)
            matches = {
                "repeat the last token": (np.asarray(lag_1 == paths.tokens), 0),
                "straight line through the last two": (np.asarray(line == paths.tokens), 0),
                # Its scale was measured on tokens drawn at this temperature.
                "adaptive linear prediction, order 32": (
                    right(jnp.asarray(laplace) * setting[0]),
                    forecasters.LINEAR_PREDICTION_COST / net.multiplications,
                ),
            }
            for name, head in heads.items():
                stale = [
                    right(forecasters.forecast(head.logits, head.params, paths, j))
                    for j in range(STALEST + 1)
                ]
                matches[name] = np.stack(stale), head.cost
            rows = {
                name: (
                    match[0].mean() if match.ndim == 3 else match.mean(),
                    cost,
                    [kept_a_pass(match, k) for k in PASSES],
                )
                for name, (match, cost) in matches.items()
            }
            rows["what the pass before drew"] = (
                np.nan,
                0,
                [iterated(net, coupling, setting, paths, k) for k in PASSES],
            )
            match = integrated_match(net, coupling, setting, paths, options.integrated)
            rows["(network, newest token summed out)"] = (
                match.mean(),
                0,
                [kept_a_pass(match, k) for k in PASSES],
            )
            show(f"{setting_name}, {coupling_name}, {entropy(paths, setting):.2f} bits a sample", rows, costs)


def show(
    title: str, rows: dict[str, tuple[float, float, list[float]]], costs: dict[str, dict[int, float]]
) -> None:
    """Print samples kept a pass, and the best speed-up for either precision."""
    print(f"\n{title}\n")
    heads = ["forecaster", "cost", "right", *(f"k = {k}" for k in PASSES), *(f"best, {p}" for p in costs)]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for name, (share, cost, kept) in rows.items():
        best = [
            max(n / (ratio[k] + (k - 1) * cost) for k, n in zip(PASSES, kept, strict=True))
            for ratio in costs.values()
        ]
        agreed = "" if np.isnan(share) else f"{share:.2f}"
        cells = [name, f"{cost:.2f}", agreed, *(f"{n:.2f}" for n in kept), *(f"{b:.2f}x" for b in best)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
