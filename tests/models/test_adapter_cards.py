"""The shipped cards of learned baselines: they parse without torch, are pinned, and name files that adapters read."""

import re
import subprocess
import sys

import pytest

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.models.registry import load_adapter

NAMES = [
    "depth-anything-v2",
    "depth-anything-v2-small",
    "dsine",
    "genpercept",
    "geowizard",
    "lotus-d",
    "lotus-g",
    "marigold-e2e-ft",
    "marigold-lcm",
    "marigold-v0-1",
    "marigold-v1-1",
    "metric3d-v2",
    "moge-2",
    "omnidata-v2",
    "sd-e2e-ft",
    "stable-normal",
    "stable-normal-turbo",
]


@pytest.mark.parametrize("name", NAMES)
def test_settings_fit_the_adapter_and_weights_are_pinned_or_the_users(name: str) -> None:
    card = catalog.load(ModelCard, name)
    adapter = load_adapter(card)
    assert adapter.per_frame
    assert card.kind == "image"
    assert card.weights is not None
    pinned = re.fullmatch("[0-9a-f]{40}", card.weights.revision)
    assert pinned or card.weights.host == "elsewhere"
    assert card.weights.address.startswith("https://")


@pytest.mark.parametrize("name", ["marigold-v1-1", "marigold-v0-1", "marigold-lcm", "sd-e2e-ft", "lotus-g"])
def test_cards_name_every_file_that_is_read(name: str) -> None:
    weights = catalog.load(ModelCard, name).weights
    assert weights is not None
    wanted = {"unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json"}
    wanted |= {"vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors"}
    wanted |= {"tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"}
    wanted |= set() if "lotus" in name else {"scheduler/scheduler_config.json"}
    wanted |= {"model_index.json"} if name in ("marigold-v1-1", "marigold-v0-1", "marigold-lcm") else set()
    assert wanted <= weights.files.keys()


def test_a_protocol_on_marigolds_training_data_says_so() -> None:
    assert {"sintel", "dsine-sintel", "hypersim"} <= set(catalog.load(ModelCard, "marigold-v1-1").training_sets)


def test_making_models_imports_no_heavy_library() -> None:
    code = f"""
import sys
from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.models.registry import load_adapter
for name in {NAMES}:
    load_adapter(catalog.load(ModelCard, name))
print([name for name in ("torch", "diffusers", "transformers", "torchvision") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
