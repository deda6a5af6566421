"""How an exported file is called: Python that runs as it stands, beside the file and a `photo.jpg`."""

from __future__ import annotations

from cache.spec import Fit
from export.config import FILES, Format

_LOAD: dict[Format, str] = {
    "onnx": f'session = onnxruntime.InferenceSession("{FILES["onnx"]}", providers=["CPUExecutionProvider"])',
    "program": (
        f'network = torch.export.load("{FILES["program"]}").module()\n'
        "network = network.to(memory_format=torch.channels_last)  # faster on processors"
    ),
}
_IMPORT: dict[Format, str] = {"onnx": "import onnxruntime", "program": "import torch"}
_CALL: dict[Format, str] = {
    "onnx": 'probability = session.run(["probability"], {"image": image})[0]',
    "program": "probability = network(torch.from_numpy(image)).numpy()",
}
_PLACE: dict[Fit, str] = {
    "letterbox": """\
inner = ImageOps.contain(photo, (SIDE, SIDE), Image.Resampling.HAMMING)
left, top = (SIDE - inner.width) // 2, (SIDE - inner.height) // 2
square = Image.new("RGB", (SIDE, SIDE))
square.paste(inner, (left, top))""",
    "stretch": "square = photo.resize((SIDE, SIDE), Image.Resampling.HAMMING)",
}
_CROP: dict[Fit, tuple[str, ...]] = {
    "letterbox": ("mask = mask.crop((left, top, left + inner.width, top + inner.height))",),
    "stretch": (),
}


def usage(kind: Format, *, side: int, fit: Fit) -> str:
    """Give a program that cuts the persons out of `photo.jpg`.

    Args:
        kind: of the file that it calls.
        side: of the square that the network sees, pixels.
        fit: how photos are laid into it.
    """
    head = sorted((_IMPORT[kind], "import numpy as np"))
    return "\n".join(
        (
            *head,
            "from PIL import Image, ImageOps",
            "",
            f"SIDE = {side}",
            _LOAD[kind],
            'photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
            _PLACE[fit],
            "image = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)[np.newaxis])  # (1, 3, SIDE, SIDE)",
            f"{_CALL[kind]}  # (1, 1, SIDE, SIDE)",
            "mask = Image.fromarray((255 * probability[0, 0] + 0.5).astype(np.uint8))",
            *_CROP[fit],
            "photo.putalpha(mask.resize(photo.size, Image.Resampling.BILINEAR))",
            'photo.save("cutout.png")',
        )
    )
