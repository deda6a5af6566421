"""Training: profiles by hardware, one step, the run, checkpoints and pictures."""
