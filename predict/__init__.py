"""Photos without their backgrounds: files in, a trained network's masks applied, files out."""
