"""The recipe: everything needed to make a picture again and to tell whether it came out the same.

Canonical JSON (sorted keys, no spaces, UTF-8) in the PNG's ``recipe`` text.  It holds the *resolved* request, so
nothing in it is random or "default".
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from webui.errors import MetadataError, RequestError
from webui.request import BUILT_IN_VAE, GenerationRequest
from webui.result import Environment, ModelFile, Plugin, TensorCounts

FORMAT = 1
"""Raised when a reader of an older version would misunderstand the record."""
MAX_RECIPE = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How picture ``index`` of a job was made.  ``pixels`` is the digest of the decoded picture (``pixel_digest``).

    ``inputs`` are the SHA-256 of every picture that was read (start image, mask, those of conditioning modules).
    """

    request: GenerationRequest
    index: int
    models: tuple[ModelFile, ...]
    inputs: tuple[str, ...]
    environment: Environment
    plugins: tuple[Plugin, ...]
    pixels: str

    def to_json(self) -> str:
        """The canonical text."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "request": self.request.to_dict(),
            "index": self.index,
            "models": [_model_data(model) for model in self.models],
            "inputs": list(self.inputs),
            "environment": self.environment.to_dict(),
            "plugins": [asdict(plugin) for plugin in self.plugins],
            "pixels": self.pixels,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe.  Raises MetadataError when it is damaged or of a newer format."""
        if len(text) > MAX_RECIPE:
            raise MetadataError(f"The picture's recipe has {len(text)} characters; at most {MAX_RECIPE} are read.")
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise MetadataError(f"The recipe has format {data['format']}; this version reads format {FORMAT}.")
            recipe = cls(
                # recipes from before there was a choice of VAE mean the checkpoint's own
                request=GenerationRequest.from_dict({"vae": BUILT_IN_VAE, **data["request"]}),
                index=_whole(data["index"], 0),
                models=tuple(map(_model_file, data["models"])),
                inputs=tuple(_text(digest) for digest in data["inputs"]),
                environment=_environment(data["environment"]),
                plugins=tuple(Plugin(**_texts(plugin)) for plugin in data["plugins"]),
                pixels=_text(data["pixels"]),
            )
            recipe._check()
            return recipe
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError, RequestError) as error:
            raise MetadataError(
                f"The picture's recipe is damaged ({error}); its plain parameters may still be read."
            ) from error

    def _check(self) -> None:
        """Raise ValueError for a recipe that no picture of ours carries."""
        if not self.request.is_resolved:
            raise ValueError("its request is not resolved")
        if self.index >= self.request.pictures:
            raise ValueError(f"picture {self.index} of {self.request.pictures}")
        if not any(model.role == "checkpoint" for model in self.models):
            raise ValueError("it names no checkpoint")


def request_of_one(recipe: Recipe) -> GenerationRequest:
    """The request that makes just the recipe's picture: its own seed, a batch of one."""
    return recipe.request.alone(recipe.index)


def input_digests(request: GenerationRequest) -> tuple[str, ...]:
    """The stored pictures that a request reads."""
    if request.start is None:
        return ()
    mask = request.start.mask
    masks = (mask.image, mask.latent) if mask else ()
    return (request.start.image, *(digest for digest in masks if digest is not None))


def _model_data(model: ModelFile) -> dict[str, Any]:
    """Plain values; counts only where there are any, as in recipes from before they were kept."""
    return {name: value for name, value in asdict(model).items() if value is not None}


def _model_file(data: Any) -> ModelFile:
    texts = _texts({name: value for name, value in data.items() if name != "tensors"})
    counts = {name: _whole(value, 0) for name, value in data.get("tensors", {}).items()}
    file = ModelFile(role=texts.pop("role"), name=texts.pop("name"), sha256=texts.pop("sha256"))
    if texts:
        raise ValueError(f"a model file has {', '.join(texts)}")
    return replace(file, tensors=TensorCounts(**counts)) if counts else file


def _environment(data: Any) -> Environment:
    threads, transformers = _whole(data["threads"], 1), data["transformers"]
    texts = {name: value for name, value in data.items() if name not in ("threads", "transformers")}
    told = None if transformers is None else _text(transformers)
    return Environment(**_texts(texts), threads=threads, transformers=told)


def _texts(record: Any) -> dict[str, str]:
    return {name: _text(value) for name, value in record.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no text")
    return value


def _whole(value: Any, lowest: int) -> int:
    if type(value) is not int or value < lowest:
        raise ValueError(f"{value!r:.80} is no whole number from {lowest} on")
    return value
