"""A folder of pictures and a small vision model's weights, made once; what a fit says, round by round."""

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file


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
    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False, num_classes=0)
    path = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


@pytest.fixture
def job(pictures, weights, tmp_path):
    return job_of(pictures, weights, tmp_path / "classifier")


def job_of(pictures, weights, out, **changes):
    """A short training on them: three rounds of three steps, with a state saved after each step."""
    from serial_lora_course.work import Job

    short = dict(rank=2, epochs=4, min_steps=1, batch_size=7, precision="no", save_every=0.0)
    short |= dict(pictures=str(pictures), model="timm/test_vit", out=str(out), weights=str(weights))
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
