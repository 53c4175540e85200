"""FoodSeg103: ``python data_scripts/foodseg103.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="foodseg103",
    homepage="https://github.com/LARC-CMU-SMU/FoodSeg103-Benchmark-v1",
    licence="Apache 2.0",
    citation="Wu, Fu, Liu, Lim, Hoi and Sun: A Large-Scale Benchmark for Food Image "
    "Segmentation. ACM MM 2021",
    archives=(
        Archive(
            file_name="FoodSeg103.zip",
            urls=("https://research.larc.smu.edu.sg/downloads/datarepo/FoodSeg103.zip",),
            moves={"FoodSeg103": ""},
        ),
    ),
    pictures=7118,
    classes=103,
    note="The labs take ice cream, pie and strawberry from it. The archive is locked: give the "
    "password, which the README at its home prints, with --password. Python unlocks slowly; "
    "`unzip` is faster, and an unpacked folder at ROOT/FoodSeg103, with Images and "
    "category_id.txt in it, will do as well. Neither size nor hash is published; both are "
    "recorded at the first download.",
    password_at="https://github.com/LARC-CMU-SMU/FoodSeg103-Benchmark-v1",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("foodseg103", app)
