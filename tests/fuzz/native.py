"""Random networks and calls against the native sampler, until the time is up or one goes wrong.

    python tests/fuzz/native.py --minutes 10 --seed 0
    python tests/fuzz/native.py --seed 0 --case 1234
    tests/fuzz/sanitize.sh python tests/fuzz/native.py --minutes 10 --seed 0

Every case is a function of seed and number, printed before it runs: a crash leaves its number in the last line. Of each
case must hold: time or rows generated in parts equal the whole bit by bit; tokens lie in the vocabulary, forced ones
unchanged; numpy arrays of any layout are read as what they hold; bad arguments are errors of one line. Networks with
weights of usual size must have the outputs of a float64 convolution in numpy, with the same tokens.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from wavegen.kernels import WaveNetShape, native, wavenet_generate
from wavegen.kernels.wavenet.shapes import Net

SETS = native.instruction_sets()
SCALES = {"usual": 1.0, "zero": 0.0, "denormal": 1e-40, "large": 1e3, "huge": 1e35}
TOLERANCE = {"float32": 3e-5, "bfloat16": 2e-2, "int8": 5e-2}
"""Of a network's outputs, relative to the sum of their terms' magnitudes, by the precision of its products."""
REFUSALS = (ValueError, NotImplementedError, jax.errors.JaxRuntimeError)


@dataclass(frozen=True)
class Case:
    net: Net
    weights: dict[str, np.ndarray]
    scale: str
    precision: str
    batch: int
    steps: int
    position: int
    history: np.ndarray
    forced: np.ndarray
    inputs: np.ndarray | None
    condition: np.ndarray | None
    hop: int
    offset: int
    draw: dict[str, Any]
    key: jax.Array
    first_row: int = 0

    @property
    def dtype(self) -> str:
        """Of weights and rings: 8 bits are rounded from float32."""
        return stored(self.precision)

    def __str__(self) -> str:
        sizes = {k: v for k, v in vars(self.net).items() if k != "shape"}
        return f"B {self.batch} T {self.steps} {self.scale} {self.precision} {self.draw} {self.net.shape} {sizes}"


def stored(precision: str) -> str:
    return "float32" if precision == "int8" else precision


def random_net(rng: Generator) -> Net:
    def width() -> int:
        return int(rng.integers(1, rng.choice([9, 40, 131])))

    mixture = bool(rng.random() < 0.3)
    vocabulary = 65536 if mixture and rng.random() < 0.5 else int(rng.choice([2, 3, 16, 17, 256, 1000]))
    dilations = tuple(int(rng.choice([8, 100, 5000]) ** rng.random()) for _ in range(rng.integers(1, 7)))
    return Net(
        WaveNetShape(
            dilations,
            vocabulary,
            "mixture" if mixture else "softmax",
            int(rng.integers(1, 20)),
            int(rng.integers(9)) if mixture else 0,
            int(rng.choice([0, 255])),
        ),
        *(width() for _ in range(4)),
        kernel_size=int(rng.integers(2, 6)),
        input_kernel_size=int(rng.integers(1, 4)),
        condition=width() if rng.random() < 0.4 else 0,
        scalar_input=vocabulary > 1000 or bool(rng.random() < 0.3),
    )


def random_case(rng: Generator) -> Case:
    net = random_net(rng)
    precision = str(rng.choice(list(TOLERANCE)))
    net = replace(net, shape=replace(net.shape, int8=precision == "int8"))
    scale = str(rng.choice(list(SCALES), p=[0.6, 0.1, 0.1, 0.1, 0.1]))
    # Rounded to bfloat16 in either case: both dtypes then hold the same network.
    weights = {
        k: (np.asarray(w, "float64") * SCALES[scale])
        .astype(jnp.bfloat16)
        .astype(jnp.dtype(stored(precision)))
        for k, w in net.random_weights(int(rng.integers(1 << 30))).items()
    }
    rows = (net.kernel_size - 1) * sum(net.shape.dilations)
    batch = min(int(rng.choice([1, 2, 3, 8, 17, 40])), 1 + 4_000_000 // (rows * net.residual))
    work = batch * sum(w.size for k, w in weights.items() if k != "embedding")
    steps = int(rng.integers(1, 2 + min(200, 20_000_000 // work)))
    vocabulary = net.shape.vocab_size
    reach = max(net.input_kernel_size, net.shape.linear_prediction)
    frames, hop = 1, int(rng.integers(1, 40))
    offset = int(rng.integers(hop))
    if net.condition and rng.random() < 0.7:
        frames = -(-(offset + steps) // hop) + int(rng.integers(2))
    draw: dict[str, Any] = {"temperature": float(rng.choice([0.0, 1e-42, 1e-3, 0.7, 1.0, 1e6, 3e38]))}
    if net.shape.head == "softmax":
        draw["top_k"] = int(rng.choice([0, 0, 1, 2, vocabulary // 2, vocabulary, 2**31 - 1]))
        draw["top_p"] = float(rng.choice([1.0, 1.0, 1e-30, 0.5, 0.999999]))
    # -1 and below are drawn; at and above the vocabulary is read as its last level.
    tokens = [-(2**31), -1, -1, -1, 0, vocabulary - 1, vocabulary, 2**31 - 1]
    return Case(
        net,
        weights,
        scale,
        precision,
        batch,
        steps,
        # Counted modulo 2^32, in the int32 that XLA has; there the rings would start anew.
        int(rng.choice([0, 1, 12345, 2**31 - 1 - steps // 2, -(2**31)])),
        rng.choice([*tokens, vocabulary // 2], (batch, reach)).astype(np.int32),
        rng.choice(tokens, (batch, steps)).astype(np.int32),
        rng.normal(size=(batch, steps, net.residual)).astype("float32") if rng.random() < 0.4 else None,
        rng.normal(size=(batch, frames, net.condition)).astype("float32") if net.condition else None,
        hop,
        offset,
        draw,
        jax.random.key(int(rng.integers(1 << 30))),
    )


def initial(case: Case) -> dict[str, Any]:
    # All in numpy, here and below: each array operation of JAX would be compiled for each case.
    size = ((case.net.kernel_size - 1) * sum(case.net.shape.dilations), case.batch, case.net.residual)
    rings = np.zeros(size, jnp.dtype(case.dtype))
    return {"rings": rings, "history": case.history, "position": np.asarray(case.position, np.int32)}


def arguments(case: Case, state: Any, first: int = 0, last: int | None = None) -> dict[str, Any]:
    """Of one call that generates steps [first, last) from the state before them."""
    last = case.steps if last is None else last
    part: dict[str, Any] = {"forced": case.forced[:, first:last], "row_offset": case.first_row}
    if case.inputs is not None:
        part["inputs"] = case.inputs[:, first:last]
    if case.condition is not None:
        start = case.offset + first
        frame = start // case.hop if case.condition.shape[1] > 1 else 0
        part |= {"condition": case.condition[:, frame:], "condition_hop": case.hop}
        part |= {"condition_offset": start % case.hop}
    common = {"weights": case.weights, "shape": case.net.shape, "state": state, "steps": last - first}
    return common | case.draw | part | {"key": case.key, "return_logits": True, "implementation": "cpu"}


def scattered(x: np.ndarray) -> np.ndarray:
    """The same values, with gaps between them in memory."""
    spread = np.zeros([2 * n for n in x.shape], x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    spread[...] = x
    return spread


def generate(call: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    return jax.tree.map(np.asarray, wavenet_generate(**call))


def reference(case: Case, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [B, T, O] of all steps at once, with given tokens; and their terms' magnitudes, summed."""
    net, shape, steps = case.net, case.net.shape, case.steps
    w = {k: v.astype("float64") for k, v in case.weights.items()}
    seen = np.concatenate([case.history, tokens], 1)
    h = np.zeros((case.batch, steps, net.residual)) + w["input_bias"]
    for j, table in enumerate(reversed(w["scalar"] if net.scalar_input else w["embedding"])):
        newest = case.history.shape[1] - 1 - j
        token = seen[:, newest : newest + steps]
        level = np.clip(token, 0, shape.vocab_size - 1)
        u = 2 * level / (shape.vocab_size - 1) - 1
        expanded = np.sign(u) * np.expm1(np.abs(u) * np.log1p(shape.mu)) / shape.mu if shape.mu else u
        value = np.stack([u, expanded], -1) @ table if net.scalar_input else table[level]
        h += np.where(token[..., None] < 0, 0, value)
    if case.inputs is not None:
        h += case.inputs
    skip: Any = w["skip_bias"]
    for i, dilation in enumerate(shape.dilations):
        a = h @ w["dilated"][i, -1] + w["dilated_bias"][i]
        kept = h.astype(jnp.dtype(case.dtype)).astype("float64")  # what the rings hold
        for lag, tap in enumerate(w["dilated"][i, -2::-1], 1):
            a[:, lag * dilation :] += kept[:, : max(steps - lag * dilation, 0)] @ tap
        if case.condition is not None:
            frame = (case.offset + np.arange(steps)) // case.hop
            a += case.condition[:, np.minimum(frame, case.condition.shape[1] - 1)] @ w["condition"][i]
        z = np.tanh(a[..., : net.gate]) / (1 + np.exp(-a[..., net.gate :]))
        skip = skip + z @ w["skip"][i]
        h = h + z @ w["residual"][i] + w["residual_bias"][i]
    hidden = np.maximum(np.maximum(skip, 0) @ w["hidden"] + w["hidden_bias"], 0)
    magnitude = np.maximum(np.abs(skip), 1) @ np.abs(w["hidden"]) @ np.abs(w["output"])
    return hidden @ w["output"] + w["output_bias"], magnitude + np.abs(w["output_bias"])


def check_tokens(case: Case, tokens: np.ndarray) -> None:
    drawn = case.forced < 0
    np.testing.assert_array_equal(tokens[~drawn], case.forced[~drawn])
    assert ((tokens[drawn] >= 0) & (tokens[drawn] < case.net.shape.vocab_size)).all()


def check_parts(case: Case, whole: Any, rng: Generator, in_rows: bool) -> None:
    """The whole, cut in time or, if it may be, between rows."""
    in_rows &= case.batch > 1
    if case.steps > 1 and (not in_rows or rng.random() < 0.5):
        cut = int(rng.integers(1, case.steps))
        first = generate(arguments(case, initial(case), 0, cut))
        second = generate(arguments(case, first[1], cut))
        parts = (
            np.concatenate([first[0], second[0]], 1),
            second[1],
            np.concatenate([first[2], second[2]], 1),
        )
    elif in_rows:
        cut = int(rng.integers(1, case.batch))
        halves = [generate(arguments(half, initial(half))) for half in rows(case, cut)]
        axes = {"rings": 1, "history": 0}
        state = {k: np.concatenate([half[1][k] for half in halves], axis) for k, axis in axes.items()}
        state["position"] = halves[0][1]["position"]
        parts = (np.concatenate([h[0] for h in halves]), state, np.concatenate([h[2] for h in halves]))
    else:
        return
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def rows(case: Case, cut: int) -> list[Case]:
    halves = []
    for part in (slice(0, cut), slice(cut, None)):
        arrays = {k: getattr(case, k) for k in ("history", "forced", "inputs", "condition")}
        arrays = {k: None if x is None else x[part] for k, x in arrays.items()}
        halves.append(replace(case, batch=len(arrays["forced"]), first_row=part.start, **arrays))
    return halves


def check_outputs(case: Case, tokens: np.ndarray, outputs: np.ndarray) -> None:
    expected, magnitude = reference(case, tokens)
    error = np.max(np.abs(outputs - expected) / (magnitude + 1e-30))
    assert error < TOLERANCE[case.precision], f"outputs are off by {error:.2e} of their terms"


def check_numbers_taken_on_trust(case: Case, rng: Generator) -> None:
    """Arrays are not looked at before the call: whatever they hold, tokens come back."""
    numbers = {"temperature": [np.nan, -1.0, np.inf, 1e-45], "row_offset": [-(2**31), 2**31 - 1]}
    if case.net.shape.head == "softmax":
        numbers |= {"top_k": [-7, 2**31 - 1], "top_p": [np.nan, -1.0, 0.0, 7.0]}
    if case.net.condition:
        numbers["condition_offset"] = [-(2**31), -7, 2**31 - 1]
    call = arguments(case, initial(case)) | {
        k: jnp.asarray(
            rng.choice(v), "int32" if k in ("top_k", "row_offset", "condition_offset") else "float32"
        )
        for k, v in numbers.items()
    }
    check_tokens(case, generate(call)[0])


def check_refusals(case: Case, rng: Generator) -> None:
    """Three of the ways to go wrong."""
    state, weights = initial(case), case.weights
    name = str(rng.choice(sorted(weights)))
    array = weights[name]
    broken = array.copy()
    broken.flat[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    spans = {k: rng.integers(0, 2) for k in state}
    changes: list[dict[str, Any]] = [
        {"steps": int(rng.choice([0, -1, -(2**31)]))},
        {"steps": 2.5},
        {"temperature": float(rng.choice([np.nan, np.inf, -1]))},
        {"top_k": rng.choice([-1, 2.5])},
        {"top_p": float(rng.choice([0, np.nan, 1.5]))},
        {"key": np.zeros(rng.choice([0, 1, 3]), np.uint32)},
        {"key": np.zeros(2, np.float32)},
        {"forced": case.forced.astype("float32")},
        {"forced": case.forced[:, :-1]},
        {"inputs": np.zeros((case.batch, case.steps + 1, case.net.residual), "float32")},
        {"inputs": np.zeros((case.steps, case.net.residual), "float32")},
        {"condition": np.zeros((case.batch, 0, case.net.condition), "float32")},
        {"condition": np.zeros((case.batch, 1, case.net.condition + 1), "float32")},
        {"condition_hop": 0},
        {"condition_hop": 2.5},
        {"condition_offset": -1},
        {"condition_offset": 10**12},
        {"state": state | {"history": case.history[:, :0]}},
        {"state": state | {"history": case.history.astype("int16")}},
        {"state": state | {"position": np.zeros(1, "int32")}},
        {"state": state | {"rings": state["rings"][:, :0]}},
        {"state": state | {"rings": state["rings"][:-1]}},
        {"state": state | {"rings": state["rings"].astype("float16")}},
        {"state": {k: v for k, v in state.items() if spans[k]} | {"more": case.history}},
        {"weights": weights | {name: broken}},
        {"weights": weights | {name: array[..., :0]}},
        {"weights": weights | {name: array[:0]}},
        {"weights": weights | {name: np.concatenate([array, array])}},
        {"weights": weights | {name: array[None]}},
        {"weights": weights | {name: np.zeros(array.shape, "float16")}},
        {"weights": {k: v.astype("float64") for k, v in weights.items()}},
        {"weights": {k: v for k, v in weights.items() if k != name}},
        {"implementation": "fpga"},
    ]
    for i in rng.choice(len(changes), 3, replace=False):
        message = refusal(arguments(case, state) | changes[i])
        assert message is not None, f"taken without an error: {changes[i]}"
        assert len(message.splitlines()) == 1, f"not one line: {message}"


def refusal(call: dict[str, Any]) -> str | None:
    try:
        generate(call)
    except REFUSALS as error:
        return str(error)
    return None


def run(seed: int, number: int) -> None:
    rng = np.random.default_rng((seed, number))
    case = random_case(rng)
    os.environ["WAVEGEN_INSTRUCTION_SET"] = str(rng.choice(SETS))
    os.environ["WAVEGEN_THREADS"] = str(rng.integers(1, 9))
    print(f"{number}: {os.environ['WAVEGEN_INSTRUCTION_SET']} {case}", flush=True)
    call = arguments(case, initial(case))
    for name in ("forced", "inputs", "condition"):
        if name in call and rng.random() < 0.5:
            call[name] = scattered(call[name].astype("int64" if name == "forced" else "float64"))
    if rng.random() < 0.5:
        call |= {"weights": {k: scattered(w) for k, w in case.weights.items()}}
    tokens, state, outputs = whole = generate(call)
    check_tokens(case, tokens)
    seen = np.concatenate([case.history, tokens], 1)
    np.testing.assert_array_equal(state["history"], seen[:, -case.history.shape[1] :])
    if case.scale in ("usual", "zero", "denormal"):
        check_outputs(case, tokens, outputs)
    # On tiles rows are rounded, and which rows are on tiles depends on how many a thread has.
    tiles = os.environ["WAVEGEN_INSTRUCTION_SET"] == "amx" and case.weights["residual"].dtype == "bfloat16"
    if not tiles:
        os.environ["WAVEGEN_THREADS"] = str(rng.integers(1, 9))
    check_parts(case, whole, rng, in_rows=not tiles)
    check_numbers_taken_on_trust(case, rng)
    check_refusals(case, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this one alone")
    options = parser.parse_args()
    if options.case is not None:
        return run(options.seed, options.case)
    start = time.monotonic()
    number = 0
    while time.monotonic() < start + 60 * options.minutes:
        try:
            run(options.seed, number)
        except Exception:
            print(
                f"failed; alone: python tests/fuzz/native.py --seed {options.seed} --case {number}",
                flush=True,
            )
            raise
        number += 1
        if number % 50 == 0:
            jax.clear_caches()  # every case compiles anew
    print(f"{number} cases, none failed; {time.process_time() / 60:.1f} minutes of processor time")
    return None


if __name__ == "__main__":
    main()
