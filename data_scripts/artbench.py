"""ArtBench-10, for Art Nouveau and Impressionism: ``python data_scripts/artbench.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.data.style_files import ARTBENCH_LIST
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="artbench",
    homepage="https://github.com/liaopeiyuan/artbench",
    licence="fair use (the pictures); MIT (the rest)",
    citation="Liao, Li, Liu and Keutzer: The ArtBench Dataset: Benchmarking Generative Models with "
    "Artworks. arXiv:2206.11404, 2022",
    archives=(
        Archive(
            file_name="artbench-10-imagefolder-split.tar",
            urls=("https://artbench.eecs.berkeley.edu/files/artbench-10-imagefolder-split.tar",),
            moves={
                "artbench-10-imagefolder-split/train": "train",
                "artbench-10-imagefolder-split/test": "test",
            },
        ),
        Archive(
            file_name=ARTBENCH_LIST,
            urls=(f"https://artbench.eecs.berkeley.edu/files/{ARTBENCH_LIST}",),
            keep_as=ARTBENCH_LIST,
        ),
    ),
    pictures=12_000,
    classes=2,
    note="The labs take Art Nouveau and Impressionism; the other eight styles are unpacked with "
    "them. About 2 GB, 256 x 256 pixels a picture (artbench_originals.py brings the works at their own "
    "size); the list of artists and titles is a file of its "
    "own. Size and hash are not published for this edition (MD5s are, for the one of 32 x 32), so "
    "both are recorded at the first download.",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("artbench", app)
