"""What validation says of an autoencoder, against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from ncbench import catalog
from ncbench.loader_card import LoaderCard
from ncbench.loaders.recipes import open_clips
from ncbench.recipe_card import Validation
from ncbench.training.stage import ReconstructionStage
from ncbench.training.validation import Validator, summary, validation_card

STORES = "data/stores"


class Tilted(ReconstructionStage):
    """Gives normals back tilted by a fixed amount."""

    shift = torch.tensor([0.2, -0.1, 0.05])[:, None, None]

    def load(self, init, seed):
        pass

    def forward(self, batch, generator):
        return {}

    def save(self, folder):
        pass

    def reconstruct(self, normals):
        return torch.nn.functional.normalize(normals + self.shift, dim=1)


def test_an_autoencoder_is_reported_by_angle_and_psnr_over_valid_pixels(linear):
    loader = catalog.load(LoaderCard, "tiny-loader")
    settings = Validation(dataset="tiny", sequences=["two"], frames=2, clips=9, pictures=0)
    stage = Tilted({})
    cpu = torch.device("cpu")
    shares = [Validator(settings, loader, STORES).run(stage, cpu, rank, 2) for rank in range(2)]
    values, picture = summary([score for share in shares for score in share])
    assert picture is None
    clips = open_clips(validation_card(settings, loader), STORES)
    plan = clips.plan(0)
    truth, found = [], []
    for at in range(len(plan.refs)):
        batch = clips.read([plan.ref(at)])
        valid = batch["valid"][0].numpy()
        answers = stage.reconstruct(batch["normal"][0])
        truth.append(batch["normal"][0].movedim(1, -1).double().numpy()[valid])
        found.append(answers.movedim(1, -1).double().numpy()[valid])
    expected = peak_signal_noise_ratio(np.concatenate(truth), np.concatenate(found), data_range=2)
    assert values["validation_psnr"] == pytest.approx(expected, abs=1e-4)
    assert 5 < values["validation_mean"] < 25
    stage.shift = torch.zeros(3, 1, 1)
    perfect, _ = summary(Validator(settings, loader, STORES).run(stage, cpu, 0, 1))
    assert perfect["validation_psnr"] > 90
