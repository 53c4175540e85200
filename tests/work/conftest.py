"""A folder of pictures and a small vision model's weights, made once; what a fit says, round by round."""

import pytest
import timm
import torch
from PIL import Image
from timm.models._hub import save_for_hf


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Three classes of eight pictures each, told apart by their colour."""
    folder = tmp_path_factory.mktemp("pictures") / "colours"
    for label, colour in enumerate(("red", "green", "blue")):
        (folder / colour).mkdir(parents=True)
        for number in range(8):
            light = [60 + 5 * number] * 3
            light[label] = 255 - 3 * number
            Image.new("RGB", (40 + number, 40), tuple(light)).save(
                folder / colour / f"{number}.png"
            )
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("weights") / "test_vit")


def saved_model(folder):
    """A random model of timm in a folder of its architecture's name, as timm reads it."""
    torch.manual_seed(0)
    model = timm.create_model(folder.name, pretrained=False, num_classes=0)
    save_for_hf(model, folder, safe_serialization=True)
    return folder


@pytest.fixture
def job(pictures, weights, tmp_path):
    return job_of(pictures, weights, tmp_path / "classifier")


def job_of(pictures, weights, out, **changes):
    """A short training on them: three rounds of three steps, with a state saved after each step."""
    from serial_lora_course.work import Job

    short = dict(rank=2, epochs=4, min_steps=1, batch_size=7, precision="no", save_every=0.0)
    short |= dict(pictures=str(pictures), model=f"timm/local-dir:{weights}", out=str(out))
    short |= dict(image_size=64)
    return Job(**short | changes)


@pytest.fixture
def rounds(monkeypatch):
    """(step, loss) of each round that is told of; what is put into ``then`` is called after each."""

    class Rounds(list):
        then = staticmethod(lambda: None)

        def write(self, told):
            words = told.replace(",", "").replace(":", "").split()
            self.append((int(words[1]), float(words[6])))
            self.then()

    told = Rounds()
    monkeypatch.setattr("serial_lora_course.work.fit.tqdm", told)
    return told
