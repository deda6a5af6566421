"""Networks, loss and metrics."""
