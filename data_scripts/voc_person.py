"""PASCAL VOC 2012, for its persons: ``python data_scripts/voc_person.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="voc_person",
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    licence="photographs from Flickr, on Flickr's terms of use",
    citation="Everingham, Van Gool, Williams, Winn and Zisserman: The PASCAL Visual Object Classes "
    "Challenge 2012 (VOC2012) Results",
    archives=(
        Archive(
            file_name="VOCtrainval_11-May-2012.tar",
            urls=(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            ),
            facts=FileFacts(size=1_999_639_040, md5="6cd6e144f989b92b3379bac3b3de84fd"),
            moves={"VOCdevkit/VOC2012": ""},
        ),
    ),
    pictures=2913,
    classes=20,
    note="The labs take the persons, in the place of the paper's Stanford 40, which has boxes and "
    "no masks. Other pictures, without masks, are unpacked with them. An unpacked folder at "
    "ROOT/VOCdevkit/VOC2012, as torchvision leaves it, will do as well.",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("voc_person", app)
