"""Oxford-IIIT Pet: ``python data_scripts/oxford_pets.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="oxford_pets",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    licence="CC BY-SA 4.0",
    citation="Parkhi, Vedaldi, Zisserman and Jawahar: Cats and Dogs. CVPR 2012",
    archives=(
        Archive(
            file_name="images.tar.gz",
            urls=(
                "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
                "https://thor.robots.ox.ac.uk/pets/images.tar.gz",
            ),
            facts=FileFacts(size=791_918_971, md5="5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            moves={"images": "images"},
        ),
        Archive(
            file_name="annotations.tar.gz",
            urls=(
                "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
                "https://thor.robots.ox.ac.uk/pets/annotations.tar.gz",
            ),
            facts=FileFacts(size=19_173_078, md5="95a8c909bbe2e81eed6a22bccdf3f68f"),
            moves={"annotations": "annotations"},
        ),
    ),
    pictures=7349,
    classes=37,
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("oxford_pets", app)
