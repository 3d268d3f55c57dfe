"""Fashion-MNIST: 70,000 images of clothing, 28x28, ten classes; fetched once, then shared by all processes.

Source: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms, arXiv:1708.07747 (2017).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from normlab.data import cached, idx
from normlab.data.dataset import Dataset
from normlab.data.idx import IdxFile, Unusable
from normlab.data.sources import DebianPackage, Download, Folder, Say, Source
from normlab.data.split import Examples
from normlab.errors import NormlabError
from normlab.store.home import cache

VARIABLE = "NORMLAB_FASHION_MNIST"
PACKAGE = "dataset-fashion-mnist"

FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte",
        (60000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", (10000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}

SOURCES: tuple[Source, ...] = (
    Folder(Path("/usr/share/datasets/fashion-mnist")),
    Download("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", "31 MB"),
    Download("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion", "31 MB"),
    DebianPackage(PACKAGE, "usr/share/datasets/fashion-mnist", "31 MB"),
)


def path() -> Path:
    """Where the verified file lies, or will lie."""
    return cache() / "fashion-mnist.safetensors"


def load(say: Say, sources: Sequence[Source] = SOURCES, files: Mapping[str, IdxFile] = FILES) -> Dataset:
    """`fashion-mnist`: images as uint8 (N, 1, 28, 28), mapped from the cache, which the first source fills.

    A damaged cache is said and filled again. The folder that NORMLAB_FASHION_MNIST names comes before
    all other sources and without them. Raises NormlabError where no source serves or the cache cannot be
    written.
    """
    cached.sweep(path())
    tensors = _mapped(files, say)
    if tensors is None:
        cached.fill(path(), lambda scratch: _fetch(sources, files, say, scratch))
        tensors = _mapped(files, say)
    if tensors is None:
        raise NormlabError(f"{path()} as it was written", "another file, or none", "check the disk")
    train, test = _examples(tensors, "train"), _examples(tensors, "test")
    return Dataset("fashion-mnist", train, None, test, train.classes)


def status() -> str:
    """`verified`, `missing` or `damaged: why`, of the file in the cache."""
    try:
        return "missing" if cached.read(path(), FILES) is None else "verified"
    except Unusable as why:
        return f"damaged: {why}"


def _mapped(files: Mapping[str, IdxFile], say: Say) -> dict[str, Tensor] | None:
    try:
        return cached.read(path(), files)
    except Unusable as why:
        say(f"fashion-mnist: {path()} is damaged ({why}) and is made again")
        return None


def _fetch(sources: Sequence[Source], files: Mapping[str, IdxFile], say: Say, scratch: Path) -> dict[str, Tensor]:
    """The tensors of the first source that has them all, as published."""
    if named := os.environ.get(VARIABLE):
        # Alone: who names a folder wants that one, or to hear what is wrong with it.
        sources = [Folder(Path(named).expanduser())]
    reasons = []
    for number, source in enumerate(sources):
        own = scratch / str(number)
        own.mkdir()
        try:
            folder = source.fetch(
                [known.name for known in files.values()], own, lambda line: say(f"fashion-mnist: {line}")
            )
            return {name: idx.read(folder, known) for name, known in files.items()}
        except Unusable as why:
            reasons.append(f"{source}: {why}")
    wanted = ", ".join(f"{known.name}.gz" for known in files.values())
    if named:
        raise NormlabError(
            f"fashion-mnist in the folder of {VARIABLE}", "; ".join(reasons), f"put {wanted} there, or unset it"
        )
    raise NormlabError(
        "fashion-mnist from one of its sources",
        "; ".join(reasons),
        f"connect to the network, or apt install {PACKAGE}, or set {VARIABLE} to a folder with {wanted}",
    )


def _examples(tensors: Mapping[str, Tensor], split: str) -> Examples:
    return Examples(tensors[f"{split}_images"].unsqueeze(1), tensors[f"{split}_labels"].to(torch.int64))
