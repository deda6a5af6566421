"""How fast each stage is, against the physical limit."""
