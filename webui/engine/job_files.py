"""The model files that a job needs beside those its prompts name.  Torch-free; called by the runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from webui.checkpoints.library import Library, ModelEntry
from webui.request import BUILT_IN_VAE, GenerationRequest
from webui.result import ModelFile

CHECKPOINT = "checkpoint"
REFINER = "refiner"
SECOND = "hires checkpoint"
VAE = "vae"

KINDS = {REFINER: CHECKPOINT, SECOND: CHECKPOINT}
"""The kind of model that a role is played by, where its name is another."""

Recorded = Mapping[tuple[str, str], ModelEntry]
"""The files of a picture that is made again, by role and by the name that its request or prompt uses."""


@dataclass(frozen=True, kw_only=True)
class JobFiles:
    """The checkpoints of a resolved request and the VAE that stands in for theirs (None: their own)."""

    checkpoint: ModelEntry
    vae: ModelEntry | None = None
    second: ModelEntry | None = None
    refiner: ModelEntry | None = None

    @classmethod
    def of(cls, request: GenerationRequest, library: Library, recorded: Recorded | None = None) -> JobFiles:
        """The files of the models folder or, where given, those ``recorded``.  Raises RequestError for unknown ones."""

        def find(role: str, name: str | None) -> ModelEntry | None:
            if name is None:
                return None
            found = (recorded or {}).get((role, name))
            return found or library.find(name, KINDS.get(role, role))

        second = request.second_pass
        return cls(
            checkpoint=find(CHECKPOINT, request.checkpoint) or library.default_checkpoint(),
            vae=None if request.vae == BUILT_IN_VAE else find(VAE, request.vae),
            second=find(SECOND, second.checkpoint if second else None),
            refiner=find(REFINER, request.refiner.checkpoint if request.refiner else None),
        )

    @property
    def by_role(self) -> tuple[tuple[str, ModelEntry], ...]:
        """Every file with what it is used as, the checkpoint first."""
        files = ((CHECKPOINT, self.checkpoint), (VAE, self.vae), (SECOND, self.second), (REFINER, self.refiner))
        return tuple((role, entry) for role, entry in files if entry is not None)

    @property
    def paths(self) -> frozenset[Path]:
        """Where they lie."""
        return frozenset(entry.path for _, entry in self.by_role)

    def used(self, library: Library) -> tuple[ModelFile, ...]:
        """The files for the recipe.  May read whole files, to hash them."""
        return tuple(
            ModelFile(role=role, name=entry.name, sha256=library.sha256(entry)) for role, entry in self.by_role
        )
