"""A trained network for other programs: ONNX, a program of `torch.export`, and the card that goes with them."""
