"""Videos without their backgrounds, frame by frame."""
