"""What can be taught.  A drop-in folder: each file registers through ``register_training_kinds``.

A kind turns a request into a :class:`Task`: which tensors learn, what the loss of a batch is, what a sample looks like,
and what the file that comes out holds.  The loop does everything else and knows no kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.errors import RequestError, unknown_name
from webui.training.request import check_types

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from webui.checkpoints.formats import WeightsFile
    from webui.device import Compute
    from webui.families import ModelFamily
    from webui.model import Model
    from webui.preprocessors import Preprocessor
    from webui.result import Pixels
    from webui.training.data import DataSet
    from webui.training.request import TrainingRequest


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a task is made from.

    ``model`` is the base, its weights in fp32 and free to be changed (nobody else holds it); ``base`` the file it came
    from and ``base_sha256`` that file's digest.  ``cache`` is a folder for what is computed once (latents).  ``tell``
    takes a sentence about a phase ("encoding pictures 300 of 4000"); it may raise JobCancelled.  ``formats`` open the
    files that options name.
    """

    request: TrainingRequest
    data: DataSet
    model: Model
    base: WeightsFile
    base_sha256: str
    families: Mapping[str, ModelFamily]
    preprocessors: Mapping[str, Preprocessor]
    compute: Compute
    cache: Path
    tell: Callable[[str], None]
    formats: Formats = BUILT_IN


@dataclass(frozen=True)
class Weights:
    """The file that comes out: tensors by name, and the metadata that belongs to this kind ("modelspec.…")."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


class Task(Protocol):
    """One thing being taught.

    ``trained`` are the tensors that learn, by names that stay the same from run to run; the loop keeps fp32 masters of
    them and writes each step's values back into them (in their own dtype).  A name that begins with ``text.`` takes the
    text encoder's share of the learning rate.  ``initial`` are fp32 values that masters begin with where the tensors
    themselves were rounded to a narrower dtype; it may be empty.
    """

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """The tensors that learn."""
        ...

    @property
    def initial(self) -> Mapping[str, Tensor]:
        """Their first values in fp32, where known more exactly."""
        ...

    def loss(self, items: Sequence[int], step: int, random: Generator) -> Mapping[str, Tensor]:
        """The losses of some items of one bucket; ``"loss"`` is what gradients are taken of, others are only shown.

        Called with gradients on, from several threads at once for the parts of a batch, each with its own ``random``
        (a CPU generator seeded from the run's seed, the step and the part).  Must not change anything.
        """
        ...

    def samples(self) -> Sequence[Pixels]:
        """Pictures (H, W, 3) uint8 that show what has been learnt, with the tensors as they are now."""
        ...

    def weights(self, trained: Mapping[str, Tensor]) -> Weights:
        """What the file holds.  ``trained`` are the fp32 values of the trained tensors, by their names."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingKind:
    """A kind as it is registered.

    ``name`` is its word in requests and on the command line ("lora"), ``label`` what people read ("LoRA").
    ``options`` is a frozen dataclass whose fields, types, defaults and docstring make its part of the form and its
    command-line options.  ``folder`` is the kind of model file that comes out, by the library's word ("lora").
    ``defaults`` are other values for fields of the request ("optimiser.rate": 1e-4).
    ``begin`` makes the task.  Without ``needs_captions`` pictures that have no caption are taken, too.
    """

    name: str
    label: str
    summary: str
    folder: str
    options: type
    begin: Callable[[Any, Materials], Task]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs_captions: bool = True


def read_options(kind: TrainingKind, options: Mapping[str, Any]) -> Any:
    """The options record of a kind.  Raises RequestError."""
    known = [entry.name for entry in fields(kind.options)]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {kind.label} training", str(name), known)
    try:
        record = kind.options(**options)
    except (TypeError, AttributeError) as error:
        raise RequestError(f"The options of {kind.label} training do not fit: {error}.") from None
    check_types(record)
    return record
