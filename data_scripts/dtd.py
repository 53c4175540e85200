"""Describable Textures (DTD): ``python data_scripts/dtd.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="dtd",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    licence="for research purposes",
    citation="Cimpoi, Maji, Kokkinos, Mohamed and Vedaldi: Describing Textures in the Wild. "
    "CVPR 2014",
    archives=(
        Archive(
            file_name="dtd-r1.0.1.tar.gz",
            urls=(
                "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                "https://thor.robots.ox.ac.uk/dtd/dtd-r1.0.1.tar.gz",
            ),
            facts=FileFacts(size=625_239_812, md5="fff73e5086ae6bdbea199a49dfb8a4c1"),
            moves={"dtd": "dtd"},
        ),
    ),
    pictures=5640,
    classes=47,
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("dtd", app)
