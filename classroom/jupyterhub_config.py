"""JupyterHub for a class on one machine, with or without a GPU. README.md beside this file says how.

    cd /srv/class                   # holds class.yaml; the hub keeps all that it makes below it
    jupyterhub -f /srv/serial-lora/classroom/jupyterhub_config.py

What a teacher decides stands in class.yaml. Here stands what follows from it.
"""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import serial_lora_course

sys.path.insert(0, str(Path(__file__).parent))
from check_class import NAME, card_of, check, find_cards, read_settings, stop  # noqa: E402
from handout import NAME as HANDOUT  # noqa: E402
from handout import hand_out  # noqa: E402

c = get_config()  # noqa: F821  (JupyterHub gives it)

CLASS = Path.cwd()
HUB, HOMES, RUNS = CLASS / "hub", CLASS / "homes", CLASS / "runs"
ACCOUNT = "class-{USERNAME}"  # the Linux account of a learner
MPS = "/run/nvidia-mps"

settings = read_settings(CLASS / "class.yaml")
cards = find_cards(settings)
check(settings, cards)
HUB.mkdir(mode=0o700, exist_ok=True)  # passwords and keys: nobody else's business
for folder in (HOMES, RUNS):
    folder.mkdir(mode=0o755, exist_ok=True)

# ------------------------------------------------------------------------------------- who, where

c.JupyterHub.bind_url = settings["address"]
c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = settings["certificate"] or "", settings["key"] or ""
c.JupyterHub.db_url = f"sqlite:///{HUB}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(HUB / "proxy.pid")

c.JupyterHub.authenticator_class = settings["authenticator"]
c.Authenticator.admin_users = set(settings["teachers"])
c.Authenticator.allowed_users = set(settings["learners"]) | set(settings["teachers"])
c.Authenticator.username_pattern = NAME + "$"
c.FirstUseAuthenticator.create_users = False  # who is not on the list chooses no password
c.FirstUseAuthenticator.dbm_path = str(HUB / "passwords.dbm")
c.FirstUseAuthenticator.min_password_length = 10
if settings["authenticator"] == "firstuse":
    said = "Here for the first time? The password that you type now becomes yours: 10 characters or more."
    c.JupyterHub.template_vars = {"announcement_login": said}
if settings["authenticator"] == "shared-password":
    for whose, name in (("user", "CLASS_PASSWORD"), ("admin", "CLASS_TEACHER_PASSWORD")):
        if not os.environ.get(name):
            stop(
                f"shared-password takes the passwords from the environment, and {name} is not there."
            )
        c.SharedPasswordAuthenticator[f"{whose}_password"] = os.environ[name]

# ------------------------------------------------------------- what a learner opens, and updates

course = settings["course"]
if not settings["solutions"]:
    course = hand_out(course, settings["branch"], CLASS / HANDOUT)
PULL = {
    "repo": course,
    "branch": settings["branch"],
    "targetpath": "serial-lora",
    "urlpath": "lab/tree/serial-lora/notebooks/00_start_here.ipynb",
}
# The course is imported first: it tells all kernels of the server how their idle threads wait.
START = "import serial_lora_course; from jupyterhub.singleuser import main; main()"
c.Spawner.cmd = [sys.executable, "-c", START]
c.Spawner.default_url = f"/git-pull?{urlencode(PULL)}"  # each start of a server fetches what is new
LINK = f"{settings['address']}/hub/user-redirect{c.Spawner.default_url}"
print(f"Updates, without a new start: {LINK}", flush=True)
c.Spawner.start_timeout = c.Spawner.http_timeout = 120  # a whole class signs in within a minute

# ---------------------------------------------------------------------------------------- limits


def gpu_environment(kind, share, card):
    """The variables that lead a learner's programs to a card, and keep them to their part of it."""
    if kind == "none":
        return {"CUDA_VISIBLE_DEVICES": ""}
    found = {"CUDA_VISIBLE_DEVICES": card.uuid, "SERIAL_LORA_GPU_SHARE": str(share)}
    if kind == "queue":
        lock = CLASS / f"{card.uuid}.lock"
        lock.touch()
        lock.chmod(0o666)
        found["SERIAL_LORA_GPU_QUEUE"] = str(lock)
    if kind == "mps":  # one server a card, which knows that card alone, as its device 0
        found["CUDA_MPS_PIPE_DIRECTORY"] = f"{MPS}/{card.uuid}"
        found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={int(share * card.gib * 1024)}M"
    return found


def give_card(spawner):
    """Tell a learner's programs which card is theirs; before each start."""
    card = card_of(spawner.user.name, settings, cards) if cards else None
    found = gpu_environment(settings["gpu"], settings["gpu_share"], card)
    spawner.environment = {**spawner.environment, **found}


def make_account(spawner):
    """A learner's Linux account, without a password, and their folders; at the first start."""
    name = ACCOUNT.format(USERNAME=spawner.user.name)
    home, runs = HOMES / spawner.user.name, RUNS / spawner.user.name
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        make = ["/usr/sbin/useradd", "--user-group", "--create-home", "--home-dir", str(home), name]
        subprocess.run(make, check=True)
        account = pwd.getpwnam(name)
        home.chmod(0o700)
    runs.mkdir(exist_ok=True)
    shutil.chown(runs, account.pw_uid, account.pw_gid)
    if not os.path.lexists(home / "runs"):
        (home / "runs").symlink_to(runs)
    give_card(spawner)


c.JupyterHub.spawner_class = "systemd"
c.Spawner.mem_limit, c.Spawner.cpu_limit = settings["memory"], float(settings["cores"])
c.Spawner.environment = {
    "SERIAL_LORA_DATA": settings["data"],
    "JUPYTER_CONFIG_PATH": str(Path(serial_lora_course.__file__).parent / "assets" / "jupyter"),
    **{name: str(value) for name, value in settings["environment"].items()},
}
c.Spawner.pre_spawn_hook, c.SystemdSpawner.pre_spawn_hook = give_card, make_account
c.SystemdSpawner.username_template = ACCOUNT
c.SystemdSpawner.unit_name_template = f"{ACCOUNT}-notebooks"
c.SystemdSpawner.isolate_tmp = c.SystemdSpawner.disable_user_sudo = True
c.SystemdSpawner.unit_extra_properties = {"TasksMax": "1000"}  # processes and threads

c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [
            *(sys.executable, "-m", "jupyterhub_idle_culler"),
            f"--timeout={60 * settings['idle_minutes']}",
        ],
    }
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "services": ["idle-culler"],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    }
]
