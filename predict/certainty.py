"""How sure a network is of its mask. Suffixes: h and w pixels of the photo's part of the network's square."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def certainty(probability_hw: npt.NDArray[np.float32], threshold: float) -> float:
    """The IoU that the mask would have if the probabilities were right, in percent; 0 where nobody is found.

    Of each pixel of the mask its probability is expected to be common to mask and person; the mask and, of each pixel
    beside it, its probability are expected to be in one of them. Networks trust themselves too much, so it is good for
    comparing photos and says too much of a single one; `docs/quality.md` has how well it foretells the true IoU.

    Args:
        probability_hw: float32 in 0 to 1, at least one pixel.
        threshold: above which a pixel is in the mask.
    """
    inside_hw = probability_hw > threshold
    persons = int(np.count_nonzero(inside_hw))
    if not persons:
        return 0.0
    common = float(probability_hw.sum(where=inside_hw, dtype=np.float64))
    beside = float(probability_hw.sum(dtype=np.float64)) - common
    return 100 * common / (persons + max(0.0, beside))
