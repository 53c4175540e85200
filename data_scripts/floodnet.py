"""FloodNet-Supervised v1.0: ``python data_scripts/floodnet.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="floodnet",
    homepage="https://github.com/BinaLab/FloodNet-Supervised_v1.0",
    licence="CDLA-Permissive 1.0",
    citation="Rahnemoonfar, Chowdhury, Sarkar, Varshney, Yari and Murphy: FloodNet: A High "
    "Resolution Aerial Imagery Dataset for Post Flood Scene Understanding. IEEE Access 9, 2021",
    archives=(
        Archive(
            file_name="FloodNet.zip",
            urls=(
                "https://www.dropbox.com/scl/fo/k33qdif15ns2qv2jdxvhx/ANGaa8iPRhvlrvcKXjnmNRc"
                "?rlkey=ao2493wzl1cltonowjdbrnp7f&dl=1",
            ),
            moves={"FloodNet-Supervised_v1.0": ""},
            packed_anew=True,
        ),
    ),
    pictures=2343,
    classes=9,
    note="About 13 GB, and as much again unpacked; --remove-archives saves half. Its home links to "
    "a Dropbox folder, which is packed anew for each download: there is no size or hash to check "
    "it against. A browser's download works as well, and so does an unpacked folder at "
    "ROOT/FloodNet-Supervised_v1.0, with train, val and test in it. The Track 1 edition, to which "
    "the paper links, is another one: most of its pictures have no masks.",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("floodnet", app)
