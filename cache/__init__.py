"""The cache format on disk. Knows numpy, lmdb and zarr; neither torch nor COCO."""
