"""The CUDA kernel's own source on a CPU, in random schedules, against the reference; with planted faults it fails."""

from dataclasses import dataclass, replace
from functools import cache

import emulation
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from emulation import Emulator

from wavegen.kernels import WaveNetShape, draw, wavenet_init_state, wavenet_prefill
from wavegen.kernels.wavenet import reference
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.cuda.op import run
from wavegen.kernels.wavenet.cuda.plan import Plan, make_plan, replan
from wavegen.kernels.wavenet.shapes import Net

pytestmark = pytest.mark.skipif(emulation.COMPILER is None, reason="there is no g++ to compile the emulator")

KEY = draw.key_words(jax.random.key(3))


@dataclass(frozen=True)
class Case:
    """A network, how it is divided, and what is asked; three more tokens than `cut` are generated."""

    net: Net
    stage_layers: int
    batch: int
    clusters: int = 1
    shared_memory: int = 227 * 1024
    cut: int = 5
    options: tuple = ()
    surrounded: bool = False


CASES = {
    # Three stages of up to two layers, two groups in flight, streams that are no whole group.
    "pipeline": Case(Net(WaveNetShape((1, 2, 4, 1, 2), vocab_size=64), 32, 32, 32, 32), 2, batch=11),
    # All that a softmax offers; nothing is a whole number of tiles, and most weights stay in global memory.
    "options": Case(
        Net(WaveNetShape((1, 3, 1), vocab_size=50), 40, 70, 150, 20, 3, 2, condition=5),
        *(2, 9, 2, 80 * 1024, 5),
        options=(("top_k", 20), ("top_p", 0.8)),
        surrounded=True,
    ),
    "mixture": Case(
        Net(
            WaveNetShape((2, 1), vocab_size=65536, head="mixture", mixtures=3, linear_prediction=5, mu=0),
            *(24, 16, 32, 32, 4, 2),
            scalar_input=True,
        ),
        *(1, 3),
        surrounded=True,
    ),
}


def widened(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


@dataclass(frozen=True)
class Setting:
    """A case's plan and the call of its first chunk, whose state has read a prompt."""

    plan: Plan
    call: Call
    clusters: int


@cache
def setting(name: str) -> Setting:
    case = CASES[name]
    net, rng = case.net, np.random.default_rng(2)
    weights = net.random_weights()
    if net.shape.head == "mixture":  # most means within the range of levels
        weights |= {"output": 0.1 * weights["output"]}
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
    plan = replan(make_plan(weights, net.shape), case.stage_layers, 2, case.shared_memory)
    around, condition = {}, None
    steps = case.cut + 3
    if case.surrounded:
        around = {"inputs": jnp.asarray(rng.normal(size=(case.batch, steps, net.residual)), jnp.float32)}
        around["forced"] = jnp.full((case.batch, steps), -1).at[1::2, 2].set(7)
    if net.condition:
        condition = jnp.asarray(rng.normal(size=(case.batch, 3, net.condition)), jnp.float32)
        around |= {"condition": condition, "condition_hop": 4, "condition_offset": 1}
    prompt = jnp.asarray(rng.integers(0, net.shape.vocab_size, (case.batch, 6)))
    state = wavenet_init_state(weights, net.shape, case.batch)
    before = None if condition is None else condition[:, :1]
    state = wavenet_prefill(weights, net.shape, state, prompt, condition=before)[1]
    call = Call(weights, net.shape, state, steps, key=KEY, temperature=0.7, row_offset=2, return_logits=True)
    return Setting(plan, replace(call, **around, **dict(case.options)), case.clusters)


def chunk(call: Call, start: int, stop: int, state) -> Call:
    """A part of a call, from a state."""
    cut = {name: x[:, start:stop] for name in ("inputs", "forced") if (x := getattr(call, name)) is not None}
    return replace(
        call, state=state, steps=stop - start, condition_offset=call.condition_offset + start, **cut
    )


@cache
def generated(name: str, seed: int = 1):
    """Tokens, state and outputs of two chunks."""
    s = setting(name)
    cut = CASES[name].cut
    most = s.clusters
    first, middle, early = run(chunk(s.call, 0, cut, s.call.state), s.plan, Emulator(seed), most)
    second, state, late = run(chunk(s.call, cut, s.call.steps, middle), s.plan, Emulator(seed + 1), most)
    return jnp.concatenate([first, second], axis=1), state, jnp.concatenate([early, late], axis=1)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_state_of_two_chunks_follow_the_reference(name):
    tokens, state, outputs = generated(name)
    call = setting(name).call
    wide = replace(call, weights=widened(call.weights), state=widened(call.state), forced=tokens)
    _, after, exact = reference.generate(wide)
    np.testing.assert_allclose(outputs, exact, atol=0.01 * np.abs(exact).max())
    np.testing.assert_array_equal(state["history"], after["history"])
    np.testing.assert_array_equal(state["position"], after["position"])
    scale = np.abs(after["rings"]).max()
    np.testing.assert_allclose(widened(state)["rings"], after["rings"], atol=0.01 * scale)


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_those_of_these_outputs_or_the_forced_ones(name):
    tokens, _, outputs = generated(name)
    call = setting(name).call
    state = call.state
    for i in range(call.steps):
        uniform = draw.uniforms(KEY, state["position"] + i, call.rows)
        history = jnp.concatenate([state["history"], tokens[:, :i]], axis=1)[:, -state["history"].shape[1] :]
        forced = None if call.forced is None else call.forced[:, i]
        # A mixture's levels are so fine that the last bit of a logarithm counts.
        slack = 1 if call.shape.head == "mixture" else 0
        drawn = call.choose(outputs[:, i], history, uniform, forced)
        np.testing.assert_allclose(tokens[:, i], drawn, atol=slack)
    assert len(np.unique(tokens)) > 8


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-4}, {"top_k": 3}])
def test_draws_at_the_ends_of_the_options(changes):
    s = setting("pipeline")
    call = replace(s.call, steps=2, **changes)
    tokens, _, outputs = run(call, s.plan, Emulator(), 1)
    uniform = draw.uniforms(KEY, s.call.state["position"], call.rows)
    np.testing.assert_array_equal(
        tokens[:, 0], call.choose(outputs[:, 0], call.state["history"], uniform, None)
    )


@cache
def small_launch():
    """What launches two groups of the pipeline's network for six steps, and its results without a fault."""
    s, launches = setting("pipeline"), []

    def launch(*given):
        launches.append(given)
        return Emulator()(*given)

    run(replace(s.call, steps=6), s.plan, launch, 1)
    return launches[0], Emulator()(*launches[0])


@pytest.mark.parametrize("seed", range(5))
def test_every_schedule_gives_the_same(seed):
    launch, expected = small_launch()
    for got, same in zip(Emulator(seed)(*launch), expected, strict=True):
        np.testing.assert_array_equal(got, same)


FAULTS = {
    "barrier": ["left out"],
    "wait": ["left out", "flipped"],
    "expect": ["left out", "shifted"],
    "send": ["left out", "shifted"],
}


def caught(site, fault):
    """How a fault shows in one of a few schedules, or None."""
    launch, expected = small_launch()
    for seed in range(20):
        try:
            got = Emulator(seed, site, fault)(*launch)
        except emulation.Failed as failed:
            return str(failed)
        if any(not np.array_equal(a, b) for a, b in zip(got, expected, strict=True)):
            return "other results"
    return None


def test_every_barrier_wait_announcement_and_message_is_needed():
    small_launch()
    sites = emulation.sites(setting("pipeline").plan)
    assert {kind for _, kind in sites} == set(FAULTS)
    verdicts = {(line, fault): caught(line, fault) for line, kind in sites for fault in FAULTS[kind]}
    assert len(verdicts) > 30
    missed = [f"kernel.h:{line} {fault}" for (line, fault), how in verdicts.items() if how is None]
    assert not missed
