"""A training step in plain PyTorch: the optimizer of ``wavegen.training.optimizer``, and an average of the weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wavegen.config.training import OptimizerConfig


def torch_step(
    network: nn.Module, batch: Sequence[Tensor], config: OptimizerConfig, rates: Sequence[float]
) -> Callable[[], float]:
    """Returns a function that does the next training step, and returns the loss from before it.

    Args:
        network: maps a batch to a loss.
        batch: the same in every step.
        config: settings of the optimizer.
        rates: learning rates of the steps; the last one stays.
    """
    params: list[Tensor] = list(network.parameters())
    decayed, free = [p for p in params if p.ndim > 1], [p for p in params if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(config.b1, config.b2), eps=1e-8, fused=True)
    average = [p.detach().clone() for p in params]
    done = 0

    def step() -> float:
        nonlocal done
        optimizer.zero_grad()
        loss = network(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rates[min(done, len(rates) - 1)]
        optimizer.step()
        decay = min(config.ema_decay, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - decay)
        done += 1
        return loss.item()

    return step
