"""A web server on localhost, and small archives laid out like the official ones."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
from PIL import Image


@dataclass
class Served:
    """One file and how the server (mis)behaves with it."""

    content: bytes
    status: int = 200
    ranges: bool = True
    announce_length: bool = True
    etag: str | None = '"one"'
    stop_after: list[int] = field(default_factory=list)  # bytes sent by the next answers
    requests: list[str | None] = field(default_factory=list)  # the Range header of each request


class WebServer:
    """Serves ``files`` (name -> Served) from a thread; use as a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        handler = type("Handler", (_Handler,), {"files": self.files})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self, name: str, content: bytes, **behaviour) -> str:
        self.files[name] = Served(content, **behaviour)
        return f"{self.url}/{name}"

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    files: dict[str, Served]

    def do_GET(self) -> None:
        served = self.files.get(self.path.lstrip("/"))
        if served is None or served.status != 200:
            self.send_error(404 if served is None else served.status)
            return
        asked = self.headers.get("Range")
        served.requests.append(asked)
        condition = self.headers.get("If-Range")
        start, total = 0, len(served.content)
        if asked and served.ranges and condition in (None, served.etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if served.announce_length:
            self.send_header("Content-Length", str(total - start))
        if served.etag:
            self.send_header("ETag", served.etag)
        self.end_headers()
        body = served.content[start:]
        if served.stop_after:
            body = body[: served.stop_after.pop(0)]
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


def picture_bytes(seed: int, size: int = 24, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A small picture that differs from seed to seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def tar_bytes(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive of files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    """A zip archive of files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _class_pictures(classes: list[str], count: int, name: str) -> dict[str, bytes]:
    pictures = {}
    for position, class_name in enumerate(classes):
        for number in range(1, count + 1):
            path = name.format(class_name=class_name, number=number)
            pictures[path] = picture_bytes(1000 * position + number)
    return pictures


def caltech101() -> dict[str, bytes]:
    classes = ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "accordion", "car_side"]
    pictures = _class_pictures(
        classes, 10, "101_ObjectCategories/{class_name}/image_{number:04d}.jpg"
    )
    outlines = {"Annotations/accordion/annotation_0001.mat": b"not read in these tests"}
    return {
        "caltech-101.zip": zip_bytes(
            {
                "caltech-101/101_ObjectCategories.tar.gz": tar_bytes(pictures),
                "caltech-101/Annotations.tar": tar_bytes(outlines, "w"),
                "__MACOSX/caltech-101/._Annotations.tar": b"left by a Mac",
            }
        )
    }


def food101() -> dict[str, bytes]:
    classes = ["apple_pie", "hot_dog"]
    members = _class_pictures(classes, 10, "food-101/images/{class_name}/{number}.jpg")
    for part, numbers in (("train", range(1, 8)), ("test", range(8, 11))):
        lists = {name: [f"{name}/{number}" for number in numbers] for name in classes}
        members[f"food-101/meta/{part}.json"] = json.dumps(lists).encode()
    return {"food-101.tar.gz": tar_bytes(members)}


def eurosat() -> dict[str, bytes]:
    classes = ["AnnualCrop", "Forest", "SeaLake"]
    return {
        "EuroSAT.zip": zip_bytes(
            _class_pictures(classes, 10, "2750/{class_name}/{class_name}_{number}.jpg")
        )
    }


def oxford_pets() -> dict[str, bytes]:
    breeds = ["Abyssinian", "american_bulldog", "Egyptian_Mau"]  # ids in alphabetical order
    identifiers = {"Abyssinian": 1, "american_bulldog": 2, "Egyptian_Mau": 3}
    pictures = _class_pictures(breeds, 10, "images/{class_name}_{number}.jpg")
    lists = {
        part: "".join(
            f"{breed}_{number} {identifiers[breed]} 1 1\n" for breed in breeds for number in numbers
        ).encode()
        for part, numbers in (("trainval", range(1, 6)), ("test", range(6, 11)))
    }
    return {
        "images.tar.gz": tar_bytes(pictures),
        "annotations.tar.gz": tar_bytes(
            {f"annotations/{part}.txt": text for part, text in lists.items()}
        ),
    }


def dtd() -> dict[str, bytes]:
    classes = ["banded", "polka-dotted"]
    name = "dtd/images/{class_name}/{class_name}_{number:04d}.jpg"
    members = _class_pictures(classes, 9, name)
    for part, numbers in (("train", (1, 2, 3)), ("val", (4, 5, 6)), ("test", (7, 8, 9))):
        lines = [
            f"{class_name}/{class_name}_{number:04d}.jpg\n"
            for class_name in classes
            for number in numbers
        ]
        members[f"dtd/labels/{part}1.txt"] = "".join(lines).encode()
    return {"dtd-r1.0.1.tar.gz": tar_bytes(members)}


ARCHIVES = {
    "caltech101": caltech101,
    "food101": food101,
    "eurosat": eurosat,
    "oxford_pets": oxford_pets,
    "dtd": dtd,
}
