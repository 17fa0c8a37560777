"""A file cut into wheels, as an alias of several wheels has it."""

import hashlib
import zipfile
from dataclasses import replace

from lmppl.lm.transformers.aliases import Alias, Wheel

CONTENT = bytes(range(250)) * 40
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder, number, content):
    """A wheel as an index serves it, which pip takes."""
    wheel = Wheel(f"tiny-part{number}==1.0", 0, "", f"tiny_part{number}/data/part.bin", len(content))
    info = f"tiny_part{number}-1.0.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n",
        f"{info}/WHEEL": WHEEL,
        f"{info}/RECORD": "",
        wheel.member: content,
    }
    with zipfile.ZipFile(folder / wheel.file, "w") as archive:
        for name, held in files.items():
            archive.writestr(zipfile.ZipInfo(name), held)  # of one date: the same file each time
    written = (folder / wheel.file).read_bytes()
    return replace(wheel, size=len(written), sha256=sha256(written))


def in_parts(folder, content, count):
    """An alias of a file that is cut into wheels, which lie in a folder."""
    length = -(-len(content) // count)
    parts = [content[first : first + length] for first in range(0, len(content), length)]
    cut = tuple(write_wheel(folder, number, part) for number, part in enumerate(parts, start=1))
    return Alias("tiny", "a tiny model", "Apache-2.0", cut, sha256(content), 1000, keeps_gguf=True)
