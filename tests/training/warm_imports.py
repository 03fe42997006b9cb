"""Imported once by the process that test runs are forked from, so that each of them starts in a moment."""

import numpy as np
import torch._dynamo

import ncbench.evaluators.angular
import ncbench.training.autoencoder_stage
import ncbench.training.latent_stage
import ncbench.training.run  # noqa: F401 - that it is imported is the point
from ncbench.loaders.randomness import words

words(np.uint64(1), 1)  # numba's first call of anything takes a second
torch.set_num_threads(1)
