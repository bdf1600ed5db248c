"""Standard error of a distance between two sets of clips, by leaving out groups of them in turn.

Source: Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 3. A bootstrap draws clips twice,
and a kernel takes two copies of a clip for two clips that agree; here no clip occurs twice.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

GROUPS = 20

Distance = Callable[[Float[np.ndarray, "M D"], Float[np.ndarray, "N D"]], float]


def standard_error(
    distance: Distance,
    generated: Sequence[Float[np.ndarray, "_ D"]],
    reference: Sequence[Float[np.ndarray, "_ D"]],
) -> float | None:
    """Returns the standard error of a distance between two sets of clips.

    Whole clips are left out, because pieces of one clip resemble each other.

    Args:
        distance: from the rows of both sets to a number.
        generated: the embeddings of each clip's pieces.
        reference: the same of recordings.

    Returns:
        The error, or None where a set has fewer than 4 clips.

    Example:
        >>> import numpy as np
        >>> from wavegen.evaluation.jackknife import standard_error
        >>> a, b = np.random.default_rng(0).normal(size=(2, 400, 1, 1))
        >>> error = standard_error(lambda x, y: float(x.mean() - y.mean()), list(a), list(b))
        >>> 0.04 < error < 0.11  # the root of 2 / 400 is 0.07
        True
    """
    groups = min(GROUPS, len(generated), len(reference))
    if groups < 4:
        return None
    values = np.array(
        [
            distance(*(np.concatenate(_without(clips, group, groups)) for clips in (generated, reference)))
            for group in range(groups)
        ]
    )
    return float(np.sqrt((groups - 1) / groups * np.sum((values - values.mean()) ** 2)))


def _without(clips: Sequence[np.ndarray], group: int, groups: int) -> list[np.ndarray]:
    return [clip for index, clip in enumerate(clips) if index % groups != group]
