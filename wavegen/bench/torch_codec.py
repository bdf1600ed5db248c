"""The waveform codec and its loss in plain PyTorch, with PyTorch's own layers and spectrograms."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavegen.codecs.quantizers import GradientVQ
from wavegen.codecs.waveform.convolution import (
    Convolution,
    Layer,
    Residual,
    Snake,
    Stack,
    TransposedConvolution,
)
from wavegen.codecs.waveform.loss import mel_scales, stft_resolutions
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.config.codec_models import CodecLossConfig
from wavegen.errors import WavegenError
from wavegen.spectral import mel_filterbank


class TorchSnake(nn.Module):
    """See ``Snake``."""

    def __init__(self, alpha: Any) -> None:
        super().__init__()
        self.alpha = parameter(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, D, T] to the same shape."""
        alpha = self.alpha[:, None]
        return x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)


class TorchResidual(nn.Module):
    """See ``Residual``."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, D, T] to the same shape."""
        return x + self.layers(x)


class TorchResidualVQ(nn.Module):
    """See ``GradientVQ``."""

    def __init__(self, ours: GradientVQ) -> None:
        super().__init__()
        self.project_in, self.project_in_bias, self.project_out, self.project_out_bias, self.codebook = (
            parameter(weights[...])
            for weights in (
                ours.project_in,
                ours.project_in_bias,
                ours.project_out,
                ours.project_out_bias,
                ours.codebook,
            )
        )

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps [B, N, D] to the quantized latents of the same shape, and the commitment and codebook losses."""
        residual, total = latents, torch.zeros_like(latents)
        commitment, learned = latents.new_zeros(()), latents.new_zeros(())
        for i, codebook in enumerate(self.codebook):
            projected = residual @ self.project_in[i] + self.project_in_bias[i]
            with torch.no_grad():
                rows, entries = F.normalize(projected.flatten(0, 1)), F.normalize(codebook)
                codes = (rows @ entries.T).argmax(1).view(projected.shape[:2])
            entries = F.embedding(codes, codebook)
            commitment = commitment + F.mse_loss(projected, entries.detach())
            learned = learned + F.mse_loss(entries, projected.detach())
            passed = projected + (entries - projected).detach()
            quantized = passed @ self.project_out[i] + self.project_out_bias[i]
            residual, total = residual - quantized, total + quantized
        return total, commitment, learned


class TorchCodec(nn.Module):
    """A copy of a codec with its weights, and its loss.

    Every clip is coded with all codebooks.

    Args:
        codec: mono, not causal, with a ``GradientVQ``.
        sample_rate: sample rate in Hz.
        weights: weights of the parts of the loss.

    Raises:
        WavegenError: if the codec is another.
    """

    def __init__(self, codec: WaveVQ, sample_rate: int, weights: CodecLossConfig) -> None:
        super().__init__()
        if codec.causal or codec.audio_channels != 1 or not isinstance(codec.quantizer, GradientVQ):
            raise WavegenError(
                "expected a mono codec for PyTorch, not causal, with a quantizer learned by gradient, got another; "
                "leave --against out"
            )
        self.encoder, self.decoder = _convert(codec.encoder), _convert(codec.decoder)
        self.quantizer = TorchResidualVQ(codec.quantizer)
        self.weights, self.hop_length = weights, codec.hop_length
        self.scales = [
            (n_fft, torch.from_numpy(mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)))
            for n_fft, n_mels in mel_scales(sample_rate)
        ]
        self.resolutions = stft_resolutions(sample_rate)

    def forward(self, audio: Tensor) -> Tensor:
        """Returns the loss of clips [B, T], averaged over them."""
        padded = F.pad(audio, (0, -audio.shape[1] % self.hop_length))
        latents = self.encoder(padded[:, None]).mT
        quantized, commitment, learned = self.quantizer(latents)
        decoded = torch.tanh(self.decoder(quantized.mT))[:, 0, : audio.shape[1]]
        weights = self.weights
        return (
            weights.mel * self._mel(decoded, audio)
            + weights.stft * self._stft(decoded, audio)
            + weights.waveform * F.l1_loss(decoded, audio)
            + weights.commitment * commitment
            + weights.codebook * learned
        )

    def _mel(self, estimate: Tensor, target: Tensor) -> Tensor:
        total = estimate.new_zeros(())
        for n_fft, bands in self.scales:
            ours, theirs = (
                (_magnitude(x, n_fft, n_fft // 4, n_fft, 1e-7).mT @ bands).clamp(min=1e-5).log10()
                for x in (estimate, target)
            )
            total = total + F.l1_loss(ours, theirs)
        return total

    def _stft(self, estimate: Tensor, target: Tensor) -> Tensor:
        total = estimate.new_zeros(())
        for n_fft, hop_length, window_length in self.resolutions:
            ours, theirs = (_magnitude(x, n_fft, hop_length, window_length, 1e-4) for x in (estimate, target))
            difference, size = (torch.linalg.vector_norm(x, dim=(1, 2)) for x in (theirs - ours, theirs))
            total = total + (difference / size).mean() + F.l1_loss(ours.log(), theirs.log())
        return total / len(self.resolutions)


def _magnitude(audio: Tensor, n_fft: int, hop_length: int, window_length: int, floor: float) -> Tensor:
    """Maps [B, T] to [B, bins, frames], at least ``floor``."""
    window = torch.hann_window(window_length)
    spectrum = torch.stft(audio, n_fft, hop_length, window_length, window, return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2).clamp(min=floor**2).sqrt()


def _convert(layer: Layer) -> nn.Module:
    """Returns PyTorch's own layer with the same weights, from [B, D, T] to [B, D, T]."""
    if isinstance(layer, Residual):
        return TorchResidual([_convert(inner) for inner in layer.layers])
    if isinstance(layer, Stack):
        return nn.Sequential(*[_convert(inner) for inner in layer.layers])
    if isinstance(layer, Snake):
        return TorchSnake(layer.alpha[...])
    if isinstance(layer, Convolution):
        taps, inputs, outputs = layer.kernel.shape
        # Where the two sides differ, this pads one zero too many on the right, which no output reaches.
        down = nn.Conv1d(inputs, outputs, taps, layer.stride, layer.padding[0], layer.dilation)
        down.weight, down.bias = parameter(layer.kernel[...].transpose(2, 1, 0)), parameter(layer.bias[...])
        return down
    if isinstance(layer, TransposedConvolution):
        stride, outputs = layer.stride, layer.bias.shape[0]
        before, now = np.asarray(layer.kernel[...]).reshape(2, -1, stride, outputs)
        kernel = np.concatenate([now, before], axis=1).transpose(0, 2, 1)
        up = nn.ConvTranspose1d(
            len(kernel), outputs, 2 * stride, stride, layer.cut, output_padding=stride % 2
        )
        up.weight, up.bias = parameter(kernel), parameter(layer.bias[...])
        return up
    raise WavegenError(
        f"expected layers that PyTorch supports, got {type(layer).__name__}; leave --against out"
    )


def parameter(weights: Any) -> nn.Parameter:
    """Copies weights into a PyTorch parameter."""
    return nn.Parameter(torch.from_numpy(np.array(weights, np.float32)))
