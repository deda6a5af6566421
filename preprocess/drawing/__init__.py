"""Drawn scenes with people, and their annotations: what `preprocess.synth` makes datasets of."""
