"""What the tests of panels ask: is the model untouched, what is shown, what does the page do?"""

import base64
import io
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serial_lora import adapters
from serial_lora.hooks import STAND_INS

ASSETS = Path(__file__).parents[2] / "serial_lora_course" / "assets"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="the front end is tested with node")


def fingerprint(model) -> tuple:
    """All that a panel must leave alone."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scales = [adapter.scale for adapter in adapters(model).values()]
    enabled = [STAND_INS.get().get(adapter, True) for adapter in adapters(model).values()]
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return tensors, scales, enabled, modes, gradients, hooks


def assert_untouched(model, before: tuple) -> None:
    now = fingerprint(model)
    assert now[1:] == before[1:]
    assert all(torch.equal(now[0][name], tensor) for name, tensor in before[0].items())


def shown_picture(html: str) -> np.ndarray:
    source = re.search(r"src='data:image/png;base64,([^']+)'", html).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))


def shown_words(html: str) -> str:
    """The words below the picture, without their marks."""
    words = re.search(r"<figcaption[^>]*>(.*?)</figcaption>", html).group(1)
    return unescape(re.sub("<[^>]*>", "", words))


def run_in_node(folder: Path, asset: str, page: str, script: str) -> dict:
    """What the script left in ``out``, run after the page, which imports ``./<asset>.mjs``."""
    shutil.copyfile(ASSETS / f"{asset}.js", folder / f"{asset}.mjs")
    file = folder / "page.mjs"
    file.write_text(f"{page}{script}\nconsole.log(JSON.stringify(out));\n", "utf-8")
    done = subprocess.run([NODE, file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
