"""The container, which is not built here: its steps are sound shell and name what there is."""

import json
import re
import shutil
import subprocess

from tools import ROOT

DOCKERFILE = ROOT / "classroom" / "Dockerfile"
DEVCONTAINER = ROOT / ".devcontainer" / "devcontainer.json"
TEXT = DOCKERFILE.read_text("utf-8").replace("\\\n", " ")
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.+)$", TEXT, re.MULTILINE)


def test_the_steps_are_sound_shell_and_name_what_is_there(tmp_path):
    steps = [step for word, step in INSTRUCTIONS if word == "RUN"]
    script = tmp_path / "steps.sh"
    script.write_text("#!/bin/sh\nset -eu\n" + "\n".join(steps) + "\n")
    subprocess.run(["sh", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)
    (extras,) = re.findall(r'pip install .*"\.\[(.+)\]"', TEXT)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(f"\n{extra} = [" in project for extra in extras.split(","))
    assert (ROOT / json.loads(dict(INSTRUCTIONS)["CMD"])[-1]).is_file()
    build = json.loads(DEVCONTAINER.read_text("utf-8"))["build"]
    assert (DEVCONTAINER.parent / build["dockerfile"]).resolve() == DOCKERFILE
    assert (DEVCONTAINER.parent / build["context"]).resolve() == ROOT
