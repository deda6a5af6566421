"""Records made from their parts, for caches that tests write themselves."""

import numpy as np


def pack_record(layout, image, person, ignore):
    """A record of an image, or of the bytes of a JPEG, and two planes of 0 and 1, as `cache.record` describes it."""
    head = np.array([image.size] if layout.codec == "jpeg" else [], "<u4").view(np.uint8)
    planes = (np.packbits(plane, bitorder="little") for plane in (person, ignore))
    return np.concatenate((head, image.reshape(-1), *planes))
