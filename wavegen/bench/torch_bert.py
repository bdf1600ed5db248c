"""The masked model in plain PyTorch, with PyTorch's own attention."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavegen.bench.torch_codec import parameter
from wavegen.errors import WavegenError
from wavegen.models.bert import Bert
from wavegen.models.layers.transformer import Block, RMSNorm


class TorchBlock(nn.Module):
    """See ``Block``."""

    def __init__(self, block: Block, dropout: float) -> None:
        super().__init__()
        width, _, self.heads, _ = block.attention.project.shape
        self.attention_norm, self.gated_norm = _norm(block.attention_norm), _norm(block.gated_norm)
        self.query_norm, self.key_norm = _norm(block.attention.query_norm), _norm(block.attention.key_norm)
        self.project = _linear(block.attention.project[...].reshape(width, -1))
        self.output = _linear(block.attention.output[...].reshape(-1, width))
        self.gate_up = _linear(block.gated.gate_up[...].reshape(width, -1))
        self.down = _linear(block.gated.down[...])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Maps [B, N, width] to the same shape; all frames are valid."""
        projected = self.project(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        queries = _rotate(self.query_norm(queries), cosine, sine)
        keys = _rotate(self.key_norm(keys), cosine, sine)
        read = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.dropout(self.output(read.transpose(1, 2).flatten(2)))
        gate, up = self.gate_up(self.gated_norm(x)).chunk(2, dim=2)
        return x + self.dropout(self.down(F.silu(gate) * up))


class TorchBert(nn.Module):
    """A copy of a masked model with its weights, and its loss.

    Args:
        model: a model without labels.
        label_smoothing: see ``masked_token``.

    Raises:
        WavegenError: if the model has labels.
    """

    def __init__(self, model: Bert, label_smoothing: float) -> None:
        super().__init__()
        if model.labels is not None:
            raise WavegenError(
                "expected a model without labels for PyTorch, got one with labels; leave --against out"
            )
        self.embedding, self.edges = parameter(model.embedding[...]), parameter(model.edges[...])
        self.blocks = nn.ModuleList(TorchBlock(block, model.dropout) for block in model.blocks)
        self.norm, self.head = _norm(model.norm), parameter(model.head[...])
        self.label_smoothing, self.pairs = label_smoothing, model.blocks[0].attention.project.shape[3] // 2

    def forward(self, inputs: Tensor, targets: Tensor, scored: Tensor, level: Tensor) -> Tensor:
        """Returns the loss of the scored tokens, averaged over them.

        Args:
            inputs: [B, N, K], some of them masked.
            targets: [B, N], the tokens of each row's level.
            scored: [B, N], which of them are to be predicted.
            level: [B].
        """
        x = torch.stack([F.embedding(inputs[..., k], table) for k, table in enumerate(self.embedding)]).sum(0)
        frames = x.shape[1]
        x = (
            x
            + F.pad(self.edges[0][None], (0, 0, 0, frames - 1))
            + F.pad(self.edges[1][None], (0, 0, frames - 1, 0))
        )
        frequency = 10000.0 ** (-torch.arange(self.pairs) / self.pairs)
        angle = torch.arange(frames)[:, None] * frequency
        cosine, sine = angle.cos(), angle.sin()
        for block in self.blocks:
            x = block(x, cosine, sine)
        logits = torch.bmm(self.norm(x), self.head[level])
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits[scored], targets[scored], label_smoothing=smoothing)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


def _norm(norm: RMSNorm) -> nn.RMSNorm:
    copy = nn.RMSNorm(norm.gain.shape[0], eps=1e-6)
    copy.weight = parameter(1 + norm.gain[...])
    return copy


def _linear(weights: Any) -> nn.Linear:
    inputs, outputs = weights.shape
    linear = nn.Linear(inputs, outputs, bias=False)
    linear.weight = parameter(weights.T)
    return linear
