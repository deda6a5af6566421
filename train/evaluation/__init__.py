"""How good a trained network is: at a cache's side, and at the photos' own size."""
