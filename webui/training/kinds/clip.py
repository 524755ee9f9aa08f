"""A small CLIP: a text tower and an image tower that agree about which caption belongs to which picture.

Radford et al. 2021 (arXiv:2103.00020, figure 3).  Stable Diffusion's text encoder is one half of such a pair: words
that mean what pictures show are learnt here before a UNet reads them.  The text tower is the base's text encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from webui.errors import RequestError, unknown_name
from webui.hooks import hookimpl
from webui.training.kinds import Materials, Task, TrainingKind

NEW_WORDS = ("keep", "spread")


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """The two towers.

    image_size: side of the pictures in pixels
    patch: side of the square patches that a picture is cut into, in pixels
    width: channels of the image tower
    layers: layers of the image tower
    heads: attention heads of the image tower
    projection: length of the vectors that are compared
    image_tower: take the image tower of this CLIP file instead of a new one; its sizes then count
    fresh_text: begin the text tower with new weights instead of the base's
    from_end: every place from a caption's end on must tell the caption, as a UNet reads them all; off: its end alone
    new_words: "spread" tells words apart that the base was never taught, "keep" leaves them all alike
    """

    image_size: int = 64
    patch: int = 8
    width: int = 192
    layers: int = 4
    heads: int = 4
    projection: int = 128
    image_tower: str = ""
    fresh_text: bool = False
    from_end: bool = True
    new_words: str = "spread"

    def __post_init__(self) -> None:
        limits = {
            "image_size": (16, 512), "patch": (2, 128), "width": (8, 2048), "layers": (1, 48), "heads": (1, 64),
            "projection": (2, 2048),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise RequestError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
        if self.image_size % self.patch:
            raise RequestError(f"Pictures of {self.image_size} px cannot be cut into patches of {self.patch} px.")
        if self.width % self.heads:
            raise RequestError(f"An image tower {self.width} channels wide cannot have {self.heads} heads.")
        if self.new_words not in NEW_WORDS:
            raise unknown_name("way with new words", str(self.new_words), NEW_WORDS)


def begin(options: ClipOptions, materials: Materials) -> Task:
    """Set up the towers and read the pictures.  Raises RequestError and CheckpointError."""
    from webui.training.contrastive import begin_contrastive

    return begin_contrastive(options, materials)


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """CLIP."""
    return [
        TrainingKind(
            name="clip",
            label="CLIP",
            summary="Teach a text encoder what words look like: captions and pictures find each other.",
            folder="clip",
            options=ClipOptions,
            begin=begin,
            defaults={
                "optimiser.rate": 1e-3,
                "optimiser.weight_decay": 0.01,
                "optimiser.warmup": 100,
                "batch_size": 256,
                "steps": 2000,
            },
        )
    ]
