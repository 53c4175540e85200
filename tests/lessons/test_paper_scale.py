"""Lessons 04, 05 and 06 whole at the paper's scale: its models, its data's layouts, no network.

Weights are random and pictures are noise, so nothing is learnt; but every cell runs on CLIP and SAM at
full size, and on a small SD3 in the published layout, with the code that a GPU would run.
"""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file

from serial_lora_course.models.clip import PAPER_MODEL, load_clip, openai_file
from serial_lora_course.models.inception import INCEPTION_FILE
from serial_lora_course.models.judges import PAPER_CLIP
from serial_lora_course.models.sam import PAPER_FILE, load_sam
from serial_lora_course.models.sd3 import PAPER_FOLDER
from tests.data import official
from tests.models import sd3_models
from tests.models.test_inception import random_state
from tools import ROOT, notebooks
from tools.sources import read_source

pytestmark = pytest.mark.slow
CELL_SECONDS = 900  # of a busy machine's
#: The small SD3 with room for pictures of 512 pixels, and as wide as the paper's rank.
WIDER = {
    "pos_embed_max_size": 32,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "caption_projection_dim": 64,
}


def clip_weights(weights: Path, name: str) -> None:
    """A full-size state dict as the data script leaves it."""
    torch.manual_seed(0)
    model = load_clip("paper", name, None).model
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, weights / openai_file(name))


def run(number: str, root: Path) -> None:
    """A lesson's source in a kernel of its own; the message of a failure shows the cell's error."""
    (source,) = ROOT.glob(f"solutions/{number}_*.py")
    wanted = {"SCALE": "paper", "LENGTH": "dry", "DATA": str(root)}
    settings = {f"SERIAL_LORA_{name}": value for name, value in wanted.items()}
    with patch.object(notebooks, "TINY", settings):
        notebooks.execute(read_source(source), source, CELL_SECONDS)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "weights").mkdir()
    return tmp_path


def test_clip(root):
    official.write(root, "eurosat")
    clip_weights(root / "weights", PAPER_MODEL)
    run("04", root)


def test_sam(root):
    more = {f"test/0000010{n}": [(3, 10, 10 * n + 5, 90, 10 * n + 70)] for n in range(2)}
    with patch.dict(official.FOOD, more):
        with patch.object(official, "FOOD_SIZE", (130, 100)):  # clearly not square
            official.write(root, "foodseg103")
    torch.manual_seed(0)
    torch.save(load_sam("paper", None).model.state_dict(), root / "weights" / PAPER_FILE)
    run("05", root)


def test_sd3(root):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    more = {
        f"anna-boch_{part}-number-{n}.jpg": (part, "art_nouveau", "RGB")
        for part, pictures in (("train", 200), ("test", 16))
        for n in range(pictures)
    }
    with patch.dict(official.ARTBENCH, more):
        official.write(root, "artbench")
    clip_weights(root / "weights", PAPER_CLIP)
    torch.save(random_state(fidelity), root / "weights" / INCEPTION_FILE)
    with patch.dict(sd3_models.OFFICIAL_TRANSFORMER, WIDER):
        sd3_models.official_folder(root / "weights" / PAPER_FOLDER)
    run("06", root)
