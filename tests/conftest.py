"""Strict numerics for every test, and the fixtures they share."""

import os
from collections.abc import Iterator
from importlib.metadata import version

# Compiling is what tests wait for. Without LLVM's optimisations it takes a quarter of the time; in one module, and by
# older emitters of fusions, which only jax 0.10 has, half of that.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jax").startswith("0.10.") else []),
        "--xla_force_host_platform_device_count=8",
    ]
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


LONGEST = (
    *("learned_tokens", "resume", "training", "stereo", "cli", "song", "mosaic_gpu", "mosaic_gpu_cluster"),
    *("causal", "adversary", "kernels", "note_pipeline", "generator", "bench", "window_generator"),
)
"""Files that take more than twenty seconds."""


def pytest_configure(config: pytest.Config) -> None:
    """Files keep the order below: pytest-xdist would put those of few tests last, which are the longest ones."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that processes end together."""
    first = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: item.path.stem not in first)


@pytest.fixture
def key() -> jax.Array:
    """A fixed PRNG key."""
    return jax.random.key(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fixed numpy generator."""
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Training on one of the devices: what many do is tested elsewhere, and takes longer to compile."""
    from jax.sharding import AxisType, Mesh

    from wavegen.training import evaluate, loop

    def mesh(*_: int) -> Mesh:
        kinds = (AxisType.Auto, AxisType.Auto)
        return jax.make_mesh((1, 1), ("data", "fsdp"), kinds, devices=jax.devices()[:1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", mesh)
        patch.setattr(evaluate, "make_mesh", mesh)
        yield
