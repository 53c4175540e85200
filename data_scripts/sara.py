"""SaRA's style pictures, for Barbie and Cyberpunk: ``python data_scripts/sara.py --help``."""

from data_scripts.fetching.command import command
from data_scripts.fetching.sources import Archive, DataSource
from serial_lora_course.door import enter

SOURCE = DataSource(
    name="sara",
    homepage="https://github.com/sjtuplayer/SaRA",
    licence="none stated, so the pictures must not be passed on",
    citation="Hu, Zhang, Yi, Huang, Wang and Ma: SaRA: High-Efficient Diffusion Model Fine-tuning "
    "with Progressive Sparse Low-Rank Adaptation. ICLR 2025",
    archives=(Archive(file_name="SaRA.zip", urls=(), moves={"": ""}),),
    pictures=754,
    classes=2,
    note="The labs take Barbie (315 pictures) and Cyberpunk (439), which lie in one archive with "
    "three other styles; each has its captions beside it in metadata.jsonl. An unpacked folder at "
    "ROOT/SaRA, with the folders of the two styles anywhere in it, will do as well. A tar file is "
    "welcome under the same name.",
    browser_address="https://drive.google.com/file/d/1iaUUBX8TnvBLMenUMyxMya8O0Oa4BlU4/view",
)
app = command(SOURCE)

if __name__ == "__main__":
    enter("sara", app)
