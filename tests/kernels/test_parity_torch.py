"""The same weights in a plain PyTorch WaveNet, written here from the paper, give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.kernels import WaveNetShape, wavenet_forward
from wavegen.kernels.wavenet.head import log_prob

torch = pytest.importorskip("torch")

VOCABULARY, RESIDUAL, GATE, SKIP, HIDDEN = 256, 12, 10, 20, 18
LABELS, LABEL_WIDTH, FEATURE_WIDTH, HOP = 5, 3, 4, 16
DILATIONS = (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)
BATCH, SAMPLES = 3, 192


class TorchWaveNet(torch.nn.Module):
    """van den Oord et al. 2016, section 2: causal one-hot input, gated dilated blocks, skips, two 1x1s."""

    def __init__(self, kernel_size, input_kernel_size, conditioned, excited):
        super().__init__()
        conv = torch.nn.Conv1d
        self.input = conv(VOCABULARY, RESIDUAL, input_kernel_size)
        self.excitation = conv(2, RESIDUAL, 1, bias=False) if excited else None
        self.dilated = torch.nn.ModuleList(
            conv(RESIDUAL, 2 * GATE, kernel_size, dilation=dilation) for dilation in DILATIONS
        )
        self.residual = torch.nn.ModuleList(conv(GATE, RESIDUAL, 1) for _ in DILATIONS)
        self.skip = torch.nn.ModuleList(conv(GATE, SKIP, 1, bias=False) for _ in DILATIONS)
        self.skip_bias = torch.nn.Parameter(torch.randn(SKIP))
        if conditioned:
            self.labels = torch.nn.Embedding(LABELS, LABEL_WIDTH)
            self.by_label = torch.nn.ModuleList(
                torch.nn.Linear(LABEL_WIDTH, 2 * GATE, bias=False) for _ in DILATIONS
            )
            self.by_feature = torch.nn.ModuleList(
                conv(FEATURE_WIDTH, 2 * GATE, 1, bias=False) for _ in DILATIONS
            )
        self.hidden = conv(SKIP, HIDDEN, 1)
        self.output = conv(HIDDEN, VOCABULARY, 1)

    @staticmethod
    def causal(layer, x):
        reach = (layer.kernel_size[0] - 1) * layer.dilation[0]
        return layer(torch.nn.functional.pad(x, (reach, 0)))

    def forward(self, tokens, labels=None, features=None, excitation=None):
        """Logits [B, T, V] from tokens [B, T], labels [B], features [B, frames, width], excitation."""
        one_hot = torch.nn.functional.one_hot(tokens, VOCABULARY).to(self.skip_bias.dtype)
        h = self.causal(self.input, one_hot.transpose(1, 2))
        if excitation is not None:
            h = h + self.excitation(excitation.transpose(1, 2))
        skips = 0
        for i in range(len(DILATIONS)):
            gate = self.causal(self.dilated[i], h)
            if labels is not None:
                gate = gate + self.by_label[i](self.labels(labels))[:, :, None]
                upsampled = features.transpose(1, 2).repeat_interleave(HOP, dim=2)
                gate = gate + self.by_feature[i](upsampled)[:, :, : h.shape[2]]
            z = torch.tanh(gate[:, :GATE]) * torch.sigmoid(gate[:, GATE:])
            skips = skips + self.skip[i](z)
            h = h + self.residual[i](z)
        y = self.hidden(torch.relu(skips + self.skip_bias[None, :, None]))
        return self.output(torch.relu(y)).transpose(1, 2)


def build(kernel_size, input_kernel_size=1, conditioned=False, excited=False):
    """A network whose logits spread over several nats, so that agreement to 1e-4 says something."""
    torch.manual_seed(0)
    net = TorchWaveNet(kernel_size, input_kernel_size, conditioned, excited)
    with torch.no_grad():
        for parameter in net.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.normal_(std=1.5 / fan_in**0.5)
        net.input.weight.normal_()  # one of its columns at a time is active
    return net


def stacked(layers, field="weight"):
    """Layers of convolutions [out, in, taps] as one array [L, taps, in, out]; biases as [L, out]."""
    values = [getattr(layer, field).detach().numpy() for layer in layers]
    return np.stack([v.transpose(2, 1, 0) if v.ndim == 3 else v.T for v in values])


def our_weights(net):
    weights = {
        "embedding": stacked([net.input])[0],
        "input_bias": net.input.bias.detach().numpy(),
        "dilated": stacked(net.dilated),
        "dilated_bias": stacked(net.dilated, "bias"),
        "residual": stacked(net.residual)[:, 0],
        "residual_bias": stacked(net.residual, "bias"),
        "skip": stacked(net.skip)[:, 0],
        "skip_bias": net.skip_bias.detach().numpy(),
        "hidden": stacked([net.hidden])[0, 0],
        "hidden_bias": net.hidden.bias.detach().numpy(),
        "output": stacked([net.output])[0, 0],
        "output_bias": net.output.bias.detach().numpy(),
    }
    if hasattr(net, "labels"):
        weights["condition"] = np.concatenate([stacked(net.by_feature)[:, 0], stacked(net.by_label)], axis=1)
    return jax.tree.map(jnp.asarray, weights)


def make_batch(net, conditioned, excited):
    """The same random input for both: keyword arguments of the PyTorch network, then of ours."""
    rng = np.random.default_rng(1)
    theirs, ours = {}, {}
    tokens = rng.integers(0, VOCABULARY, (BATCH, SAMPLES))
    theirs["tokens"], ours["tokens"] = torch.tensor(tokens), jnp.asarray(tokens, jnp.int32)
    if conditioned:
        frames = SAMPLES // HOP
        features = rng.normal(size=(BATCH, frames, FEATURE_WIDTH)).astype(np.float32)
        labels = rng.integers(0, LABELS, BATCH)
        theirs["features"], theirs["labels"] = torch.tensor(features), torch.tensor(labels)
        embedded = net.labels.weight.detach().numpy()[labels]
        everywhere = np.repeat(embedded[:, None], frames, axis=1)
        ours["condition"] = jnp.asarray(np.concatenate([features, everywhere], axis=-1))
        ours["condition_hop"] = HOP
    if excited:
        excitation = rng.normal(size=(BATCH, SAMPLES, 2)).astype(np.float32)
        theirs["excitation"] = torch.tensor(excitation)
        projection = net.excitation.weight.detach().numpy()[:, :, 0].T
        ours["inputs"] = jnp.asarray(excitation @ projection)
    return theirs, ours


SHAPE = WaveNetShape(dilations=DILATIONS, vocab_size=VOCABULARY)


@pytest.mark.parametrize("form", ["conv", "matmul"])
@pytest.mark.parametrize("conditioned", [False, True], ids=["unconditional", "labels and features"])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_logits_equal_those_of_pytorch(kernel_size, conditioned, form):
    net = build(kernel_size, conditioned=conditioned)
    theirs, ours = make_batch(net, conditioned, excited=False)
    expected = net(**theirs).detach().numpy()
    assert expected.std() > 0.5
    logits = wavenet_forward(our_weights(net), SHAPE, **ours, form=form)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_logits_with_wide_input_and_excitation_equal_those_of_pytorch():
    net = build(kernel_size=4, input_kernel_size=2, conditioned=True, excited=True)
    theirs, ours = make_batch(net, conditioned=True, excited=True)
    logits = wavenet_forward(our_weights(net), SHAPE, **ours)
    np.testing.assert_allclose(logits, net(**theirs).detach().numpy(), rtol=0, atol=1e-4)


def test_loss_and_its_gradients_equal_those_of_pytorch():
    net = build(kernel_size=2, conditioned=True)
    theirs, ours = make_batch(net, conditioned=True, excited=False)
    targets = np.random.default_rng(2).integers(0, VOCABULARY, (BATCH, SAMPLES))
    loss = torch.nn.functional.cross_entropy(net(**theirs).flatten(0, 1), torch.tensor(targets).flatten())
    loss.backward()

    def our_loss(weights):
        return -log_prob(wavenet_forward(weights, SHAPE, **ours), SHAPE, jnp.asarray(targets)).mean()

    value, gradients = jax.jit(jax.value_and_grad(our_loss))(our_weights(net))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for parameter in net.parameters():
        parameter.data = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    expected = our_weights(net)
    assert gradients.keys() == expected.keys()
    for name in expected:
        scale = np.abs(expected[name]).max()
        assert scale > 0
        np.testing.assert_allclose(gradients[name], expected[name], rtol=0, atol=1e-4 * scale, err_msg=name)
