"""picture -> control picture.  A drop-in folder; conditioning modules and the training of control adapters use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.errors import RequestError

if TYPE_CHECKING:
    import torch

    from webui.checkpoints.formats import WeightsFile
    from webui.checkpoints.library import ModelEntry
    from webui.result import Pixels

KIND = "preprocessor"
"""What the library calls the model files of preprocessors."""
FOLDER = "models/ControlNetPreprocessor"
"""Where people put them."""


@dataclass(frozen=True, kw_only=True)
class Slider:
    """A number among a preprocessor's options: its name there, the words for people, its default and its range."""

    key: str
    label: str
    default: float
    low: float
    high: float
    step: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The model file that a preprocessor computes with, and the network that is made of it.

    ``file`` is its name for people ("ControlNetHED.pth"), ``find`` says which of the files in
    ``models/ControlNetPreprocessor`` it is, None when it is not there, and ``build(file, device)`` makes the network,
    in fp32; it raises CheckpointError for a file that holds another one.
    """

    file: str
    find: Callable[[Sequence[ModelEntry]], ModelEntry | None]
    build: Callable[[WeightsFile, torch.device], Any]


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """A named function from a picture (H, W, 3) uint8 and its options to a control picture of the same kind.

    ``aliases`` are other names that programs and pictures' texts use.  ``sliders`` are the numbers it reads from its
    options, ``scaled`` tells whether its result depends on the size at which it sees the picture, so that the shorter
    side is worth choosing.  ``tags`` say what it is for ("Canny", "Lineart"), ``reads_mask`` that a mask belongs to it,
    and ``needs_model`` is False where the control picture is used without a control network.  One that is ``in_worker``
    computes with torch: it runs in the worker process alone, and the page's Preview waits for it.  So does one with
    ``weights``: it is listed only while its file is there, and called as ``run(pixels, options, network)``.
    """

    name: str
    run: Callable[..., Pixels]
    aliases: tuple[str, ...] = ()
    sliders: tuple[Slider, ...] = ()
    scaled: bool = False
    tags: tuple[str, ...] = ()
    reads_mask: bool = False
    needs_model: bool = True
    in_worker: bool = False
    weights: Weights | None = None

    @property
    def needs_worker(self) -> bool:
        """Whether the server process, which has no torch, cannot run it."""
        return self.in_worker or self.weights is not None

    def file(self, entries: Sequence[ModelEntry]) -> ModelEntry | None:
        """Its model file among those of its kind, None where it needs none.  Raises RequestError when it is missing."""
        if self.weights is None:
            return None
        found = self.weights.find(entries)
        if found is None:
            raise RequestError(
                f"{self.name} needs the file {self.weights.file}; put it into {FOLDER} and press Refresh."
            )
        return found


def file_called(name: str) -> Callable[[Sequence[ModelEntry]], ModelEntry | None]:
    """A ``Weights.find`` for the file of this name, with any suffix and in any sub-folder."""
    stem = Path(name).stem.casefold()

    def find(entries: Sequence[ModelEntry]) -> ModelEntry | None:
        return next((entry for entry in entries if Path(entry.name).name.casefold() == stem), None)

    return find


def usable(preprocessors: Iterable[Preprocessor], entries: Sequence[ModelEntry]) -> dict[str, Preprocessor]:
    """Those whose model file is there, or that need none, by name."""
    return {one.name: one for one in preprocessors if one.weights is None or one.weights.find(entries) is not None}
