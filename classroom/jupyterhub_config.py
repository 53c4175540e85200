"""JupyterHub for a class on one machine, with or without a GPU. README.md beside this file says how.

    cd /srv/class                   # holds class.yaml; the hub keeps all that it makes below it
    jupyterhub -f /srv/serial-lora/classroom/jupyterhub_config.py

What a teacher decides stands in class.yaml. Here stands what follows from it.
"""

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import yaml

import serial_lora_course

c = get_config()  # noqa: F821  (JupyterHub gives it)

CLASS = Path.cwd()
HUB, HOMES, RUNS = CLASS / "hub", CLASS / "homes", CLASS / "runs"
NAME = r"[a-z][a-z0-9_-]{0,23}"
ACCOUNT = "class-{USERNAME}"  # the Linux account of a learner
GPU_KINDS = ("none", "share", "mps", "queue")


def stop(sentence):
    """End the hub before it has begun."""
    sys.exit(f"class.yaml: {sentence}")


def read_settings(path):
    """What class.yaml says, checked; what it leaves out is as in the file beside this one."""
    try:
        usual = yaml.safe_load(Path(__file__).with_name("class.yaml").read_text("utf-8"))
        said = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        stop(f"{path} is not there; copy the one beside jupyterhub_config.py and change it.")
    except yaml.YAMLError as error:
        stop(f"{path} is not YAML ({' '.join(str(error).split())}).")
    if not isinstance(said, dict) or (unknown := said.keys() - usual.keys()):
        stop(f"{', '.join(map(str, unknown)) if isinstance(said, dict) else said!r} is no setting.")
    settings = usual | said
    for who in ("teachers", "learners"):
        bad = [name for name in settings[who] or () if not re.fullmatch(NAME, str(name))]
        if bad or not settings[who]:
            stop(f"{who} needs names of small letters, digits, - and _, not {bad or 'nobody'}.")
    if settings["authenticator"] == "dummy":
        stop("the dummy authenticator lets anybody in as anybody; choose another.")
    if settings["gpu"] not in GPU_KINDS:
        stop(f"gpu is one of {', '.join(GPU_KINDS)}, not {settings['gpu']!r}.")
    if settings["gpu"] != "none" and not 0 < settings["gpu_share"] <= 1:
        stop(f"gpu_share is above 0 and up to 1, not {settings['gpu_share']}.")
    return settings


settings = read_settings(CLASS / "class.yaml")
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

PULL = {
    "repo": settings["course"],
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


def gpu_environment(kind, share):
    """The variables that keep a learner's programs to their part of the GPU."""
    if kind == "none":
        return {"CUDA_VISIBLE_DEVICES": ""}
    found = {"SERIAL_LORA_GPU_SHARE": str(share)}
    if kind == "queue":
        lock = CLASS / "gpu.lock"
        lock.touch()
        lock.chmod(0o666)
        found["SERIAL_LORA_GPU_QUEUE"] = str(lock)
    if kind == "mps":
        ask = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
        mebibytes = int(subprocess.check_output(ask, text=True))
        found["CUDA_MPS_PIPE_DIRECTORY"] = "/run/nvidia-mps"
        found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={int(share * mebibytes)}M"
    return found


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


c.JupyterHub.spawner_class = "systemd"
c.Spawner.mem_limit, c.Spawner.cpu_limit = settings["memory"], float(settings["cores"])
c.Spawner.environment = {
    "SERIAL_LORA_DATA": settings["data"],
    "JUPYTER_CONFIG_PATH": str(Path(serial_lora_course.__file__).parent / "assets" / "jupyter"),
    **gpu_environment(settings["gpu"], settings["gpu_share"]),
    **{name: str(value) for name, value in settings["environment"].items()},
}
c.SystemdSpawner.pre_spawn_hook = make_account
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
