"""Contrast and sharpness of an outline between persons and their surroundings.

Suffixes: S side of a square, H and W pixels of a part of it, 3 RGB or Lab, P pixels of the outline.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

NEAR, FAR = 2, 8
"""Radii in pixels of the small and the large window around a pixel of the outline."""

FULL_CONTRAST = 30.0
"""Difference in Lab (CIE 1976) from which the contrast is full: grey 128 and grey 208 differ by as much."""

NO_EDGE = 5.0
"""Difference in Lab in the large windows below which there is no edge to speak of."""


def outline_scores(image_SS3: U8, person_SS: U8, surroundings_SS: U8) -> tuple[float, float]:
    """Contrast and edge, each 0 to 100: means over the outline, the persons' pixels that touch their surroundings.

    At each of them the mean colours of the persons and of the surroundings are taken in two windows around it, a large
    and a small one. `far` and `near` are the differences of the two, as vectors in Lab; then

        contrast = min(1, |far| / FULL_CONTRAST)
        edge     = near . far / (|far|^2 + NO_EDGE^2), within 0 and 1

    The edge is the share of the difference that is found within `NEAR` pixels already: 1 for a sharp edge under the
    outline, little for a blurred one, for an outline beside the edge, and in plain texture, where the two differences
    are unrelated. Sums over windows come from summed-area tables (F. Crow, Summed-area tables for texture mapping,
    1984).

    Args:
        image_SS3: `(S, S, 3)` uint8 RGB.
        person_SS: `(S, S)` uint8 of 0 and 1.
        surroundings_SS: `(S, S)` uint8 of 0 and 1; no pixel is in both, and some may be in neither.

    Returns:
        Contrast and edge; both 0 where there is no outline.
    """
    beside_SS = cv2.dilate(surroundings_SS, np.ones((3, 3), np.uint8), borderValue=0)
    rows_P, columns_P = np.nonzero(cv2.bitwise_and(person_SS, beside_SS))
    if not len(rows_P):
        return 0.0, 0.0
    part = _around(rows_P), _around(columns_P)
    rows_P, columns_P = rows_P - part[0].start, columns_P - part[1].start
    lab_HW3 = np.asarray(cv2.cvtColor(image_SS3[part], cv2.COLOR_RGB2LAB), np.uint8)
    person, surroundings = _sums(lab_HW3, person_SS[part]), _sums(lab_HW3, surroundings_SS[part])
    height, width = lab_HW3.shape[:2]

    def across(radius: int) -> F32:
        """Difference of the mean colours on both sides of the outline: `(P, 3)` Lab."""
        top_P, bottom_P = np.maximum(rows_P - radius, 0), np.minimum(rows_P + radius + 1, height)
        left_P, right_P = np.maximum(columns_P - radius, 0), np.minimum(columns_P + radius + 1, width)
        window = top_P, bottom_P, left_P, right_P
        return _means(person, *window) - _means(surroundings, *window)

    near_P3, far_P3 = across(NEAR), across(FAR)
    square_P = (far_P3 * far_P3).sum(1)
    contrast_P = np.sqrt(square_P) / FULL_CONTRAST
    edge_P = (near_P3 * far_P3).sum(1) / (square_P + NO_EDGE**2)
    return 100 * float(contrast_P.clip(0, 1).mean()), 100 * float(edge_P.clip(0, 1).mean())


def _around(at_P: I64) -> slice:
    """The range of all windows along one axis."""
    return slice(max(0, int(at_P.min()) - FAR), int(at_P.max()) + FAR + 1)


def _sums(lab_HW3: U8, plane_HW: U8) -> I32:
    """Summed-area table of a plane's pixels: `(H + 1, W + 1, 4)`, Lab in bytes and 255 for each pixel."""
    lab_HW4 = cv2.cvtColor(lab_HW3, cv2.COLOR_RGB2RGBA)
    return np.asarray(cv2.integral(cv2.bitwise_and(lab_HW4, lab_HW4, mask=plane_HW)), np.int32)


def _means(sums: I32, top_P: I64, bottom_P: I64, left_P: I64, right_P: I64) -> F32:
    """Mean Lab of a plane in windows that each have at least one of its pixels: `(P, 3)`."""
    sum_P4 = sums[bottom_P, right_P] - sums[top_P, right_P] - sums[bottom_P, left_P] + sums[top_P, left_P]
    mean_P3 = sum_P4[:, :3] / (sum_P4[:, 3:] / np.float32(255))
    return np.asarray(mean_P3 * (100 / 255, 1, 1), np.float32)  # OpenCV has L in 255ths of its range
