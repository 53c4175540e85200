"""Where the paper's data sets and the models' weights come from, and on which terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torchvision import datasets

from serial_lora_course.models.inception import INCEPTION_FILE
from serial_lora_course.models.sam import PAPER_FILE


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to fetch.

    Attributes:
        size: of the download, in words.
        licence, home: on which terms, and whose; its home says how to cite it.
        files: path below the folder of downloads -> address; "" where only a browser gets it.
        sha256: of its only file, or the first digits; "" where its publisher states none.
        note: what to know before.
    """

    size: str
    licence: str
    home: str
    files: Mapping[str, str]
    sha256: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """A data set, a key of :data:`serial_lora_course.data.registry.RELEASES`.

    Attributes:
        count: pictures that the labs find in it.
        torchvision: what verifies the archives by their MD5 and unpacks them, where torchvision
            knows the set.
        into: folder below that of the downloads to unpack into, where torchvision does not.
    """

    count: int
    torchvision: Callable[[Path], object] | None = None
    into: str = ""


HOST = "https://www.robots.ox.ac.uk/~vgg/data"
ARTBENCH = "artbench-10-imagefolder-split"

PICTURES = {
    "caltech101": Pictures(
        size="0.14 GB",
        licence="CC BY 4.0",
        home="https://data.caltech.edu/records/mzrjq-6wc02",
        files={
            "caltech101/caltech-101.zip": "https://data.caltech.edu/records/mzrjq-6wc02/files/"
            "caltech-101.zip"
        },
        count=8242,
        torchvision=partial(datasets.Caltech101, download=True),
    ),
    "dtd": Pictures(
        size="0.63 GB",
        licence="for research purposes",
        home=f"{HOST}/dtd/",
        files={"dtd/dtd-r1.0.1.tar.gz": f"{HOST}/dtd/download/dtd-r1.0.1.tar.gz"},
        count=5640,
        torchvision=partial(datasets.DTD, download=True),
    ),
    "eurosat": Pictures(
        size="0.09 GB",
        licence="MIT; Sentinel-2 imagery is free, credit Copernicus",
        home="https://github.com/phelber/EuroSAT",
        files={
            "eurosat/EuroSAT.zip": "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
        },
        count=27_000,
        torchvision=partial(datasets.EuroSAT, download=True),
    ),
    "food101": Pictures(
        size="5.0 GB",
        licence="photographers' own (Foodspotting); scientific fair use only",
        home="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        files={"food-101.tar.gz": "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"},
        count=101_000,
        torchvision=partial(datasets.Food101, download=True),
    ),
    "oxford_pets": Pictures(
        size="0.81 GB",
        licence="CC BY-SA 4.0",
        home=f"{HOST}/pets/",
        files={
            f"oxford-iiit-pet/{name}": f"{HOST}/pets/data/{name}"
            for name in ("images.tar.gz", "annotations.tar.gz")
        },
        count=7349,
        torchvision=partial(datasets.OxfordIIITPet, download=True),
    ),
    "voc_person": Pictures(
        size="2.0 GB",
        licence="photographers' own, on Flickr's terms of use",
        home="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        files={
            "VOCtrainval_11-May-2012.tar": "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/"
            "VOCtrainval_11-May-2012.tar"
        },
        count=2913,
        torchvision=partial(datasets.VOCSegmentation, download=True),
        note="The persons stand in for the paper's Stanford 40, which has boxes and no masks.",
    ),
    "floodnet": Pictures(
        size="13 GB",
        licence="CDLA-Permissive 1.0",
        home="https://github.com/BinaLab/FloodNet-Supervised_v1.0",
        files={
            "FloodNet.zip": "https://www.dropbox.com/scl/fo/k33qdif15ns2qv2jdxvhx/"
            "ANGaa8iPRhvlrvcKXjnmNRc?rlkey=ao2493wzl1cltonowjdbrnp7f&dl=1"
        },
        count=2343,
        note="Dropbox packs it anew for each download, which therefore cannot be resumed. This is "
        "FloodNet-Supervised v1.0: most pictures of the edition that the paper links to have no "
        "masks.",
    ),
    "foodseg103": Pictures(
        size="1.2 GB",
        licence="Apache 2.0",
        home="https://github.com/LARC-CMU-SMU/FoodSeg103-Benchmark-v1",
        files={
            "FoodSeg103.zip": "https://research.larc.smu.edu.sg/downloads/datarepo/FoodSeg103.zip"
        },
        count=7118,
        note="The archive is locked: give --password as its home prints it. `unzip` is faster than "
        "Python, and an unpacked folder at ROOT/FoodSeg103 will do as well.",
    ),
    "artbench": Pictures(
        size="2 GB",
        licence="pictures under fair use; the rest MIT",
        home="https://github.com/liaopeiyuan/artbench",
        files={
            name: f"https://artbench.eecs.berkeley.edu/files/{Path(name).name}"
            for name in (f"{ARTBENCH}.tar", f"{ARTBENCH}/ArtBench-10.csv")
        },
        count=12_000,
        note="256 x 256 pixels a picture; `artbench_originals` brings the works at their own size.",
    ),
    "sara": Pictures(
        size="not known",
        licence="none stated, so the pictures must not be passed on",
        home="https://github.com/sjtuplayer/SaRA",
        files={"SaRA.zip": ""},
        into="SaRA",
        count=754,
        note="Only a browser gets it: https://drive.google.com/file/d/"
        "1iaUUBX8TnvBLMenUMyxMya8O0Oa4BlU4/view",
    ),
}

ORIGINALS = Source(
    size="by the work",
    licence="the hosts' terms; not to be passed on",
    home="https://github.com/liaopeiyuan/artbench",
    files={},
    note="The works that the labs use, from where ArtBench's list says that they are: a model that "
    "is tuned on 256 pixels learns blur with the style. Some addresses no longer answer.",
)

WEIGHTS = {
    "clip": Source(
        size="0.6 GB",
        licence="MIT",
        home="https://github.com/openai/CLIP",
        files={},
        note="OpenAI's weights for --model, ViT-B-16-quickgelu if left out. CLIP-Score and the "
        "paper's styles are judged by ViT-B-32-quickgelu.",
    ),
    "sam": Source(
        size="0.38 GB",
        licence="Apache 2.0",
        home="https://github.com/facebookresearch/segment-anything",
        files={PAPER_FILE: f"https://dl.fbaipublicfiles.com/segment_anything/{PAPER_FILE}"},
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "sd3": Source(
        size="15.4 GB, or 5.9 --without-t5",
        licence="Stability AI Community License",
        home="https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers",
        files={},
        note="Accept the licence at its home, then log in with `hf auth login`.",
    ),
    "inception": Source(
        size="0.1 GB",
        licence="Apache 2.0",
        home="https://github.com/toshas/torch-fidelity",
        files={
            INCEPTION_FILE: "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            f"{INCEPTION_FILE}"
        },
        sha256="6726825d",
        note="The network of FID, in the form that torch-fidelity carries.",
    ),
}

SOURCES: dict[str, Source] = {**WEIGHTS, **PICTURES, "artbench_originals": ORIGINALS}
