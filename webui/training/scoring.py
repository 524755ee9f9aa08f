"""A CLIP file -> how well captions fit pictures.  Called by what judges a model, and by the training kind "clip".

The file is that of huggingface/transformers' ``CLIPModel`` in one piece: ``text_model.…``, ``text_projection.weight``,
``vision_model.…``, ``visual_projection.weight``, ``logit_scale``.  What shapes cannot tell stands in its metadata under
the names of the two JSON files that lie beside the weights there: ``config`` and ``preprocessor_config``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.checkpoints.loaders import Header
from webui.errors import CheckpointError
from webui.networks.clip import ClipTextConfig, ClipTextEncoder
from webui.networks.clip_image import ClipImageConfig, ClipImageEncoder
from webui.prompt.tokenizer import BOS, EOS, Tokenizer
from webui.result import Pixels
from webui.training.captions import Captions
from webui.training.networks import fill

CONFIG_KEY = "config"
PREPROCESSOR_KEY = "preprocessor_config"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""How OpenAI's weights want pictures (openai/CLIP ``clip/clip.py``); files that say nothing are of their kind."""
AT_ONCE = 64


@dataclass(frozen=True)
class ImageTower:
    """The image half of a CLIP file, the factor its similarities are multiplied by as a logarithm, and the mean and
    deviation, (3, 1, 1) each, that its pictures are brought to from [0, 1].
    """

    encoder: ClipImageEncoder
    logit_scale: Tensor
    mean: Tensor
    deviation: Tensor

    @classmethod
    def load(cls, path: Path, formats: Formats = BUILT_IN) -> Self:
        """The image tower in fp32.  Raises CheckpointError when the file has none or is damaged."""
        file = formats.open(path)
        heads = _heads(file.header, "vision_config", path)
        with torch.device("meta"):
            network = ClipImageEncoder(ClipImageConfig.from_shapes(file.header.shapes(), heads))
        encoder = network.to_empty(device="cpu")
        fill(encoder, file, "")
        scale = file.load("logit_scale", torch.float32, torch.device("cpu")).get("")
        if scale is None or scale.numel() != 1:
            raise CheckpointError(f"{path.name} is no CLIP: it has no logit_scale.")
        mean, deviation = _normalisation(file.header, path)
        return cls(encoder.eval().requires_grad_(False), scale.view(()), mean, deviation)


@dataclass(frozen=True)
class ClipScorer:
    """Both towers of a CLIP file, in fp32 on the CPU."""

    text: ClipTextEncoder
    text_projection: Tensor
    image: ImageTower
    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer | None = None, formats: Formats = BUILT_IN) -> Self:
        """The scorer in a file.  Raises CheckpointError when it is no CLIP or is damaged."""
        file = formats.open(path)
        heads = _heads(file.header, "text_config", path)
        with torch.device("meta"):
            network = ClipTextEncoder(ClipTextConfig.from_shapes(file.header.shapes(), heads))
        text = network.to_empty(device="cpu")
        fill(text, file, "")
        projection = file.load("text_projection.", torch.float32, torch.device("cpu")).get("weight")
        image = ImageTower.load(path, formats)
        if projection is None or projection.shape != (image.encoder.config.projection, text.config.width):
            raise CheckpointError(f"{path.name} is no CLIP: it has no text_projection between its two towers.")
        return cls(text.eval().requires_grad_(False), projection, image, tokenizer or Tokenizer())

    @torch.inference_mode()
    def picture_vectors(self, pictures: Sequence[Pixels]) -> Tensor:
        """Vectors of length 1, (P, projection), of pictures (H, W, 3) uint8 of any sizes."""
        side = self.image.encoder.config.image_size
        parts = []
        for start in range(0, len(pictures), AT_ONCE):
            levels = np.stack([shrunk(picture, side) for picture in pictures[start : start + AT_ONCE]])
            values = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255.0
            parts.append(self.image.encoder((values - self.image.mean) / self.image.deviation))
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.inference_mode()
    def caption_vectors(self, captions: Sequence[str]) -> Tensor:
        """Vectors of length 1, (C, projection), of captions, each read at its end; what is beyond 75 tokens is cut."""
        tokens = Captions.of(captions, self.tokenizer).tokens.long()
        parts = [self._read(tokens[start : start + AT_ONCE]) for start in range(0, len(tokens), AT_ONCE)]
        return F.normalize(torch.cat(parts) @ self.text_projection.T, dim=-1)

    def similarity(self, pictures: Sequence[Pixels], captions: Sequence[str]) -> Tensor:
        """The cosine (P, C) between each picture and each caption, in [-1, 1]."""
        return self.picture_vectors(pictures) @ self.caption_vectors(captions).T

    def best(self, pictures: Sequence[Pixels], captions: Sequence[str]) -> list[int]:
        """For each picture the place of the caption that fits it best."""
        places: list[int] = self.similarity(pictures, captions).argmax(dim=1).tolist()
        return places

    def _read(self, tokens: Tensor) -> Tensor:
        ends = caption_ends(tokens)
        hidden = self.text(tokens[:, : int(ends.max()) + 1])
        last: Tensor = hidden[torch.arange(len(tokens)), ends]
        return last


def similarity(file: Path, pictures: Sequence[Pixels], captions: Sequence[str]) -> Tensor:
    """The cosine (P, C) between each picture and each caption by the CLIP in ``file``.  Raises CheckpointError."""
    return ClipScorer.load(file).similarity(pictures, captions)


def caption_ends(tokens: Tensor) -> Tensor:
    """Where captions (B, T) that are filled up with EOS end: (B,), the place of each one's first EOS."""
    return (tokens == EOS).long().argmax(dim=1)


def shrunk(picture: Pixels, side: int) -> Pixels:
    """The whole picture as a square: each pixel the mean over its area.  Nothing that a caption tells is cut off."""
    return np.array(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX))


def clip_metadata(text: ClipTextConfig, image: ClipImageConfig) -> dict[str, str]:
    """The metadata of a CLIP file: sizes and heads as transformers' ``CLIPConfig``, and pictures in [-1, 1]."""
    activation = {"hidden_act": "quick_gelu", "projection_dim": image.projection}
    config = {
        "model_type": "clip",
        "projection_dim": image.projection,
        "text_config": {
            **activation,
            "hidden_size": text.width,
            "intermediate_size": text.mlp_width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.positions,
            "vocab_size": text.vocabulary,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": EOS,
        },
        "vision_config": {
            **activation,
            "hidden_size": image.width,
            "intermediate_size": image.mlp_width,
            "num_hidden_layers": image.layers,
            "num_attention_heads": image.heads,
            "image_size": image.image_size,
            "patch_size": image.patch,
        },
    }
    preprocessor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": image.image_size}}
    return {CONFIG_KEY: json.dumps(config), PREPROCESSOR_KEY: json.dumps(preprocessor)}


def _heads(header: Header, tower: str, path: Path) -> int | None:
    """The attention heads that the metadata tells; None when it tells none."""
    heads = _stated(header, CONFIG_KEY, path).get(tower, {}).get("num_attention_heads")
    if heads is None:
        return None
    if type(heads) is not int or not 0 < heads <= 1024:
        raise CheckpointError(f"{path.name} is damaged: its {tower} cannot have {heads!r} heads.")
    return heads


def _normalisation(header: Header, path: Path) -> tuple[Tensor, Tensor]:
    stated = _stated(header, PREPROCESSOR_KEY, path)
    try:
        values = [stated.get("image_mean", OPENAI_MEAN), stated.get("image_std", OPENAI_DEVIATION)]
        mean, deviation = (torch.tensor(value, dtype=torch.float32).view(3, 1, 1) for value in values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path.name} is damaged: image_mean and image_std must be three numbers each."
        ) from error
    return mean, deviation


def _stated(header: Header, key: str, path: Path) -> Mapping[str, Any]:
    try:
        stated = json.loads(header.metadata.get(key, "{}"))
    except (ValueError, RecursionError):
        stated = None
    tables = [stated] if not isinstance(stated, dict) else [stated, *(stated.get(n, {}) for n in _TOWERS)]
    if not all(isinstance(table, dict) for table in tables):
        raise CheckpointError(f"{path.name} is damaged: its {key} metadata is not the JSON object of a CLIP.")
    found: Mapping[str, Any] = tables[0]
    return found


_TOWERS = ("text_config", "vision_config")
