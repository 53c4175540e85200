"""EuroSAT (RGB): ``python data_scripts/eurosat.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="eurosat",
    homepage="https://github.com/phelber/EuroSAT",
    licence="MIT (the data set); Sentinel-2 imagery is free and open, credit Copernicus",
    citation="Helber, Bischke, Dengel and Borth: EuroSAT: A Novel Dataset and Deep Learning "
    "Benchmark for Land Use and Land Cover Classification. IEEE JSTARS 12(7), 2019",
    archives=(
        Archive(
            file_name="EuroSAT.zip",
            urls=(
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "https://madm.dfki.de/files/sentinel/EuroSAT.zip",
            ),
            facts=FileFacts(md5="c8fa014336c82ac7804f0398fcb19387"),
            moves={"2750": "2750"},
        ),
    ),
    pictures=27_000,
    classes=10,
    note="About 0.1 GB; the exact size is recorded at the first download. The Zenodo archive "
    "EuroSAT_RGB.zip is laid out differently and is not the one meant here.",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("eurosat", app)
