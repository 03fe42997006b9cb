"""The one interface of every training stage: networks in, losses of a batch out.

A stage knows nothing of loops, optimizers, devices, checkpoints or logs; the trainer knows nothing of networks. A new
recipe is one stage class and one YAML file.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ncbench.errors import ModelError
from ncbench.loaders.batch import Batch


class Stage(torch.nn.Module, abc.ABC):
    """Networks, which of their parameters learn, and what a batch costs.

    It is a module, so that `accelerate` can wrap it whole for any number of devices: parameters that learn are those
    with ``requires_grad``; networks that stay as they are, are submodules without.

    Making one is light: it checks settings. ``load`` brings the networks.

    Args:
        settings: The recipe's ``settings``, checked by the stage's own class of settings.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:  # noqa: ARG002 - for those that have settings
        super().__init__()

    @abc.abstractmethod
    def load(self, init: Path | None, seed: int) -> None:
        """Bring the networks, on the CPU in float32, and set ``requires_grad`` of every parameter.

        Args:
            init: Folder of weights to start from: published ones, or what ``save`` of this or another stage wrote.
                None makes networks from scratch, if the settings describe them.
            seed: What new parameters are drawn from.

        Raises:
            ModelError: A file is missing or wrong, or there is neither a folder nor a description.
        """

    @abc.abstractmethod
    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Compute the losses of one batch, on the device and in the number format that it is called in.

        Args:
            batch: As `ncbench.loaders` makes it, moved to the device; ``image`` is float32 in [-1, 1].
            generator: On the CPU; all randomness of the step is drawn from it, so that a step is a pure function of
                parameters, batch and the generator's state.

        Returns:
            Scalars: ``loss`` with its graph, which the trainer minimizes, and its named parts without, for logs.
        """

    @abc.abstractmethod
    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Predict normals as the finished model will, for validation.

        Args:
            images: (T, 3, H, W) float32 in [-1, 1], the frames of one clip, on the device.

        Returns:
            (T, 3, H, W) float32 unit normals in the loader card's axes.
        """

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write the networks in their published layout, so that ``load``, diffusers and the adapter open them.

        Args:
            folder: An empty folder; what happens when the disk is full is the caller's business.
        """

    def files(self) -> list[Path]:
        """Name the files, besides those of ``init``, that shape what is learnt; asked before ``load``.

        Their sha256 are part of what a run is: it is not gone on with when one of them is another.

        Returns:
            Paths, as the settings give them; none unless a stage says otherwise.

        Raises:
            ModelError: One of them is not there.
        """
        return []

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters that learn, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


class ReconstructionStage(Stage):
    """A stage that learns an autoencoder, and so is validated on how well it gives normals back."""

    @abc.abstractmethod
    def reconstruct(self, normals: torch.Tensor) -> torch.Tensor:
        """Encode and decode the normals of one clip.

        Args:
            normals: (T, 3, H, W) float32 unit normals, zero where not valid, on the device.

        Returns:
            (T, 3, H, W) float32 unit normals.
        """

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Refuse: an autoencoder knows nothing of images.

        Args:
            images: Not looked at.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"{type(self).__name__} learns an autoencoder and predicts no normals from {tuple(images.shape)} images. "
            "Call 'reconstruct' with normals, or train the stages that follow it."
        )
