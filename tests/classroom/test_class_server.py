"""The class server for real: three learners sign in, run lesson 02 at once, update, and it stops."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
import yaml

from tests.browser.browser import free_port, needs_browser, open_browser, run_all
from tools import ROOT

NEEDED = ("jupyterhub", "jupyterhub_idle_culler", "firstuseauthenticator", "nbgitpuller")
LEARNERS = ("ada", "emmy", "grace")
FOLDER, FIRST, LESSON = ("serial-lora/notebooks", "00_start_here.ipynb", "02_parameter_count.ipynb")
PATIENCE = 300  # seconds; three kernels load PyTorch at once
CELL = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell"  # of the notebook in front

pytestmark = [
    pytest.mark.slow,
    needs_browser,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED))
        or shutil.which("configurable-http-proxy") is None,
        reason='needs `pip install ".[classroom]"` and `npm install -g configurable-http-proxy`',
    ),
]


def wait_until(what: Callable[[], object], words: str) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, words
        time.sleep(2)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """What learners get: a repository with two lessons, and a function that commits to it."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "notebooks").mkdir()
    for name in (FIRST, LESSON):
        shutil.copy(ROOT / "notebooks" / name, folder / "notebooks")
    git = ["git", "-C", str(folder), "-c", "user.name=Maria", "-c", "user.email=maria@localhost"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)

    def commit():
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=Lessons"], check=True)

    commit()
    return folder, commit


@pytest.fixture(scope="module")
def hub(course, tmp_path_factory):
    """The hub as a process, from the repository's own configuration, with two things in other places.

    Servers are started by JupyterHub's simple spawner, since a test's machine need not have systemd;
    and each learner's home is a folder of the test.
    """
    folder = tmp_path_factory.mktemp("class")
    address = f"http://127.0.0.1:{free_port()}"
    usual = yaml.safe_load((ROOT / "classroom" / "class.yaml").read_text("utf-8"))
    changed = {"address": address, "course": f"file://{course[0]}", "learners": list(LEARNERS)}
    (folder / "class.yaml").write_text(yaml.safe_dump(usual | changed))
    spec = folder / "jupyter" / "kernels" / "python3" / "kernel.json"  # of this Python, for now
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3"}))
    command = [sys.executable, "-m", "jupyterhub", "-f", ROOT / "classroom/jupyterhub_config.py"]
    command += [
        "--JupyterHub.spawner_class=simple",
        f"--SimpleLocalProcessSpawner.home_dir_template={folder}/homes/{{username}}",
        f"--JupyterHub.hub_port={free_port()}",
        f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{free_port()}",
        *(f"--Spawner.env_keep={name}" for name in ("PATH", "PYTHONPATH", "JUPYTER_PATH")),
        *["--Spawner.args=--allow-root"] * (os.geteuid() == 0),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_PATH": str(folder / "jupyter")}
    with (folder / "hub.log").open("w") as log:
        running = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    said = lambda: (folder / "hub.log").read_text(errors="replace")  # noqa: E731
    try:
        wait_until(lambda: "is now running" in said() or running.poll() is not None, "no hub")
        assert running.poll() is None, said()
        yield running, address, folder, said
    finally:
        for process in [running, *running.children(recursive=True)] if running.is_running() else []:
            process.kill()


def wait_for_lesson(page, name: str) -> None:
    """Until JupyterLab shows a lesson; on the way there other addresses have this one in them."""
    page.wait_for_url(lambda url: urlsplit(url).path.endswith(f"/lab/tree/{FOLDER}/{name}"))
    page.wait_for_selector(CELL)


def test_three_learners_run_a_lesson_at_once_and_an_update_keeps_what_they_wrote(hub, course):
    running, address, folder, said = hub
    repository, commit = course
    homes = folder / "homes"
    lessons = {name: homes / name / "serial-lora/notebooks" / LESSON for name in LEARNERS}

    def read(name):
        return nbformat.read(lessons[name], 4)

    with open_browser() as browser:
        pages = {name: browser.new_context().new_page() for name in LEARNERS}
        for name, page in pages.items():
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(f"{address}/hub/login")
            page.fill("input[name=username]", name)
            page.fill("input[name=password]", f"a password of {name}")
            page.click("#login_submit")
        for page in pages.values():  # the server starts, fetches the course, opens lesson 00
            wait_for_lesson(page, FIRST)

        for name, page in pages.items():
            page.goto(f"{address}/user/{name}/lab/tree/{FOLDER}/{LESSON}")
            wait_for_lesson(page, LESSON)
        for name, page in pages.items():  # a new cell below the title, as a learner types it
            page.locator(CELL).first.click()
            for key in ("Escape", "b", "Enter"):
                page.keyboard.press(key)
            page.keyboard.type(f"mine = 'written by {name}'")
        for page in pages.values():
            run_all(page)

        def all_done():
            for page in pages.values():
                page.keyboard.press("Control+s")
            try:
                cells = [cell for name in LEARNERS for cell in read(name).cells]
            except nbformat.reader.NotJSONError:
                return False  # it is just being written
            outputs = [out for cell in cells for out in cell.get("outputs", ())]
            assert not any(out.output_type == "error" for out in outputs)  # nothing runs after it
            return all(c.execution_count for c in cells if c.cell_type == "code" and c.source)

        wait_until(all_done, "a lesson was not run to its end")
        for name in LEARNERS:
            outputs = [out for cell in read(name).cells for out in cell.get("outputs", ())]
            assert any("2.1" in json.dumps(out) for out in outputs)  # the first exercise's check

        # Limits, and what is started for each: told to the server, kept by systemd where there is one.
        programs = running.children(recursive=True)
        served = [p for p in programs if "jupyterhub.singleuser" in " ".join(p.cmdline())]
        servers = [program.environ() for program in served]
        assert sorted(each["JUPYTERHUB_USER"] for each in servers) == sorted(LEARNERS)
        for each in servers:
            assert (each["MEM_LIMIT"], each["CPU_LIMIT"]) == (str(3 * 2**30), "1.0")
            assert each["CUDA_VISIBLE_DEVICES"] == ""
        kernels = [p for p in programs if "ipykernel_launcher" in p.cmdline()]
        assert len(kernels) >= len(LEARNERS)
        assert all("GOMP_SPINCOUNT" in kernel.environ() for kernel in kernels)
        assert re.search(r"200 GET /hub/api/users.*idle-culler", said())

        lesson = repository / "notebooks" / LESSON
        changed = nbformat.read(lesson, 4)
        changed.cells[-1].source += "\n\nMended by the teacher."
        nbformat.write(changed, lesson)
        (repository / "notice.md").write_text("Tomorrow at nine.")
        commit()
        link = re.search(r"Updates.*?(http\S+)", said())[1]
        for page in pages.values():
            page.goto(link)
        for name, page in pages.items():
            wait_for_lesson(page, FIRST)
            sources = "\n".join(cell.source for cell in read(name).cells)
            assert f"written by {name}" in sources and "Mended by the teacher." in sources
            assert (lessons[name].parents[1] / "notice.md").exists()

    running.terminate()
    assert running.wait(PATIENCE) == 0
    _, left = psutil.wait_procs(programs, timeout=30)
    assert not left
