"""The course without its answers, as a repository for learners: ``solutions: false`` in class.yaml.

    cd /srv/class
    /srv/venv/bin/python /srv/serial-lora/classroom/handout.py     # after an update of the course

The hub does the same when it starts. Learners then fetch what changed, by the hub's link.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from check_class import read_settings, stop

LEFT_OUT = ("solutions", "tests")  # tests hold right answers in other words
NAME = "handout.git"


def hand_out(course: str, branch: str, folder: Path) -> str:
    """Commit the course's newest state without its answers; return the address of the repository.

    Args:
        course: a repository that git can fetch from, and its ``branch``.
        folder: where the repository for learners lies, or will.
    """

    def git(*words: str, text: str | None = None) -> str:
        command = ["git", "-C", str(folder), *words]
        run = subprocess.run(command, input=text, text=True, capture_output=True)
        if run.returncode:
            stop(f"{course} cannot be handed out ({' '.join(run.stderr.split())}).")
        return run.stdout.strip()

    if not folder.exists():
        folder.mkdir()
        git("init", "--quiet", "--bare", f"--initial-branch={branch}")
    git("fetch", "--quiet", course, branch)
    entries = git("ls-tree", "FETCH_HEAD").splitlines()
    kept = [entry for entry in entries if entry.partition("\t")[2] not in LEFT_OUT]
    tree = git("mktree", text="\n".join(kept) + "\n")
    before = git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
    if not before or git("rev-parse", f"{before}^{{tree}}") != tree:
        who = ("-c", "user.name=The class", "-c", "user.email=class@localhost")
        parent = ("-p", before) if before else ()
        commit = git(*who, "commit-tree", tree, *parent, "-m", "The course, without its solutions")
        git("update-ref", f"refs/heads/{branch}", commit)
    return f"file://{folder}"


if __name__ == "__main__":
    settings = read_settings(Path.cwd() / "class.yaml")
    print(hand_out(settings["course"], settings["branch"], Path.cwd() / NAME))
