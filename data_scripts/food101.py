"""Food-101: ``python data_scripts/food101.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="food101",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    licence="pictures belong to their photographers (Foodspotting); scientific fair use only",
    citation="Bossard, Guillaumin and Van Gool: Food-101 - Mining Discriminative Components with "
    "Random Forests. ECCV 2014",
    archives=(
        Archive(
            file_name="food-101.tar.gz",
            urls=(
                "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            ),
            facts=FileFacts(size=4_996_278_331, md5="85eeb15f3717b99a5da872d97d918f87"),
            moves={"food-101": ""},
        ),
    ),
    pictures=101_000,
    classes=101,
    note="5 GB from a slow host, and as much again unpacked; --remove-archives saves half.",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("food101", app)
