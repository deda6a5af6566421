"""COCO -> cache: `build_cache(BuildConfig(...))`. Never needs torch."""
