"""Caltech101: ``python data_scripts/caltech101.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="caltech101",
    homepage="https://data.caltech.edu/records/mzrjq-6wc02",
    licence="CC BY 4.0",
    citation="Li, Andreeto, Ranzato and Perona: Caltech 101. CaltechDATA, 2022, "
    "doi:10.22002/D1.20086",
    archives=(
        Archive(
            file_name="caltech-101.zip",
            urls=("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
            facts=FileFacts(size=137_414_764, md5="3138e1922a9193bfa496528edbbc45d0"),
            inner={
                "caltech-101/101_ObjectCategories.tar.gz": "pictures",
                "caltech-101/Annotations.tar": "outlines",
            },
            moves={
                "pictures/101_ObjectCategories": "101_ObjectCategories",
                "outlines/Annotations": "Annotations",
            },
        ),
    ),
    pictures=8242,
    classes=100,
    note="As in CoOp, Faces_easy and the background pictures are not used; both are unpacked.",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("caltech101", app)
