"""A folder of folders of images: each folder a class, as torchvision's ``ImageFolder`` reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kobai.core.untrusted import regular
from kobai.errors import DataError
from kobai.utils.data import Dataset
from kobai.utils.pictures import pillow

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


def open_image(path: str | Path) -> Any:
    """An image of Pillow's, in RGB; DataError names a file that is none."""
    image_module = pillow()
    try:
        with regular(Path(path)).open("rb") as file, image_module.open(file) as image:
            return image.convert("RGB")
    except OSError as error:
        reason = error.strerror or "no image that Pillow can read"
        raise DataError(f"{path}: cannot be read ({reason})") from error
    except (SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise DataError(f"{path}: no image that Pillow can read ({error})") from error


class ImageFolder(Dataset[tuple[Any, Any]]):
    """Images in ``root/<class>/…/<name>``, with the index of their class; classes and files in the order of their names.

    Attributes: ``classes``, ``class_to_idx``, ``samples`` (path and index; ``imgs`` too), ``targets``.

    Args:
        root: the folder.
        transform: from what ``loader`` gives to what is wanted, such as a ``Compose`` that ends with ``ToTensor``.
        target_transform: the same for the index.
        loader: from a path to an image; default: Pillow's, in RGB.
        is_valid_file: which files count; default: by their endings, such as .png and .jpg.
        allow_empty: take folders without images as classes; else they are an error.

    Raises:
        DataError: no folder, no classes in it, a class without images.

    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> from kobai import transforms
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
    ...         pathlib.Path(root, name).parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (4, 3)).save(pathlib.Path(root, name))
    ...     data = ImageFolder(root, transforms.ToTensor())
    ...     len(data), data.classes, data[2][0].shape, data[2][1]
    (3, ['cat', 'dog'], kobai.Size([3, 3, 4]), 1)
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        loader: Callable[[str], Any] = open_image,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.root = os.fspath(root)
        self.transform, self.target_transform, self.loader = transform, target_transform, loader
        self.classes = classes_in(self.root)
        self.class_to_idx = {name: k for k, name in enumerate(self.classes)}
        counts = is_valid_file or (lambda path: path.lower().endswith(EXTENSIONS))
        self.samples: list[tuple[str, int]] = []
        for name, k in self.class_to_idx.items():
            files = [path for path in files_in(os.path.join(self.root, name)) if counts(path)]
            if not files and not allow_empty:
                raise DataError(
                    f"ImageFolder: no image in the folder of class {name!r} in {self.root}; they end in {', '.join(EXTENSIONS)}"
                )
            self.samples += [(path, k) for path in files]
        self.imgs, self.targets = self.samples, [k for _, k in self.samples]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        image = self.loader(path)
        return (
            image if self.transform is None else self.transform(image),
            target if self.target_transform is None else self.target_transform(target),
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"ImageFolder({self.root!r}: {len(self)} images of {len(self.classes)} classes)"


def classes_in(root: str) -> list[str]:
    """Names of the folders in ``root``, sorted; hidden ones do not count."""
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"ImageFolder: {root} cannot be read ({error.strerror})") from error
    if not names:
        raise DataError(f"ImageFolder: expected a folder for each class in {root}, found none")
    return names


def files_in(folder: str) -> list[str]:
    """All files below a folder, in the order of their names."""
    return [
        os.path.join(below, name)
        for below, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
    ]
