"""WaveNet sampling as a plain PyTorch loop with ring buffers, as one would write it without a kernel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.errors import WavegenError
from wavegen.kernels.draw import key_words, uniforms
from wavegen.kernels.wavenet.shapes import Net, Weights


def torch_sampler(
    net: Net, weights: Weights, batch: int, steps: int, key: jax.Array, threads: int
) -> Callable[[], np.ndarray]:
    """Returns a function that samples [batch, steps] tokens, with the random numbers of ``wavenet_generate``.

    Raises:
        WavegenError: if PyTorch is not installed, or the loop does not support this kind of network.
    """
    try:
        import torch
    except ImportError:
        raise WavegenError("--against torch needs PyTorch; pip install torch") from None
    if net.shape.head != "softmax" or net.scalar_input or net.condition or net.input_kernel_size > 1:
        raise WavegenError(
            "expected a network with a softmax head, one embedding and no condition for PyTorch, got another; "
            "choose such a network, or leave --against out"
        )
    torch.set_num_threads(threads)
    w = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()}
    dilated = w["dilated"].flatten(1, 2)
    positions, rows = jnp.arange(steps), jnp.arange(batch)
    drawn = jax.vmap(uniforms, (None, 0, None))(key_words(key), positions, rows)[0]
    uniform = torch.from_numpy(np.array(drawn))[..., None]

    @torch.inference_mode()
    def sample() -> np.ndarray:
        taps = net.kernel_size - 1
        rings = [torch.zeros(taps * d, batch, net.residual) for d in net.shape.dilations]
        token = torch.full((batch,), net.shape.start_token)
        tokens = torch.empty(batch, steps, dtype=torch.int64)
        for t in range(steps):
            h = w["embedding"][0, token] + w["input_bias"]
            skip = w["skip_bias"].expand(batch, -1)
            for layer, (dilation, ring) in enumerate(zip(net.shape.dilations, rings, strict=True)):
                past = [ring[(t - (taps - j) * dilation) % len(ring)] for j in range(taps)]
                a = torch.addmm(w["dilated_bias"][layer], torch.cat([*past, h], 1), dilated[layer])
                ring[t % len(ring)] = h
                z = torch.tanh(a[:, : net.gate]) * torch.sigmoid(a[:, net.gate :])
                skip = torch.addmm(skip, z, w["skip"][layer])
                h = h + torch.addmm(w["residual_bias"][layer], z, w["residual"][layer])
            y = torch.relu(torch.addmm(w["hidden_bias"], torch.relu(skip), w["hidden"]))
            mass = torch.softmax(torch.addmm(w["output_bias"], y, w["output"]), -1).cumsum(-1)
            token = (mass <= uniform[t] * mass[:, -1:]).sum(-1)
            tokens[:, t] = token
        return tokens.numpy()

    return sample
