"""From stores to training batches: clips, mixtures, order, and what happens to pixels on the way."""
