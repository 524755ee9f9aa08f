"""Pictures and their captions -> two towers that find each other: the task of the training kind "clip".

Contrastive learning by Radford et al. 2021 (arXiv:2103.00020, figure 3): each picture picks its caption among those of
the batch, and each caption its picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor, nn

from webui.checkpoints.formats import Formats
from webui.networks.clip import ClipTextEncoder, TokenOverrides
from webui.networks.clip_image import ClipImageConfig, ClipImageEncoder
from webui.networks.kernels import Linear
from webui.prompt.tokenizer import BOS, EOS
from webui.result import Pixels
from webui.training.captions import Captions
from webui.training.data import DataSet
from webui.training.kinds import Materials, Weights
from webui.training.kinds.clip import ClipOptions
from webui.training.latents import to_tensor
from webui.training.networks import existing, lowered
from webui.training.scoring import ImageTower, caption_ends, clip_metadata, shrunk

LARGEST_SCALE = 100.0
"""Similarities are multiplied by at most so much (arXiv:2103.00020, section 2.5)."""
FIRST_SCALE = 1 / 0.07
TABLE = "text_model.embeddings.token_embedding.weight"
TOKEN_ROWS = "text.token_rows"
NEW_WORD_SHARE = 0.25
"""Words that were never taught begin so far apart, as a share of the deviation of those that were."""
FRESH_DEVIATION = 0.02
KEPT_BYTES = 2 * 1024**3
"""Pictures are kept in memory when they all fit into so much, else each is read whenever it comes up."""
SHOWN = 8
AT_ONCE = 64
"""Pictures that go through the image tower together: 256 at once leave the caches and take 1.17 of the time."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a data set at the image tower's size; ``kept`` is (N, side, side, 3) uint8, or None."""

    data: DataSet
    side: int
    kept: Tensor | None

    @classmethod
    def of(cls, data: DataSet, side: int, threads: int, tell: Callable[[str], None]) -> Self:
        """Read them all, if they fit into KEPT_BYTES."""
        count = len(data.items)
        if count * side * side * 3 > KEPT_BYTES:
            return cls(data, side, None)
        kept = np.empty((count, side, side, 3), np.uint8)
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for index, picture in enumerate(pool.map(lambda i: shrunk(data.pixels(i), side), range(count))):
                kept[index] = picture
                if index % 200 == 0:
                    tell(f"reading pictures {index} of {count}")
        return cls(data, side, torch.from_numpy(kept))

    def levels(self, items: Sequence[int]) -> Tensor:
        """(B, side, side, 3) uint8."""
        if self.kept is not None:
            return self.kept[list(items)]
        return torch.from_numpy(np.stack([shrunk(self.data.pixels(item), self.side) for item in items]))

    def batch(self, items: Sequence[int], flips: bool, random: Generator) -> Tensor:
        """(B, 3, side, side) fp32 in [-1, 1]; with ``flips`` half of them mirrored."""
        pictures = to_tensor(self.levels(items).numpy())
        if not flips:
            return pictures
        mirrored = torch.rand(len(items), generator=random) < 0.5
        return torch.where(mirrored.view(-1, 1, 1, 1), pictures.flip(3), pictures)


@dataclass(frozen=True)
class ContrastiveTask:
    """The two towers in the dtype they compute in.

    Of the token table only the ``rows`` that the captions use learn, in fp32 because a frequent word's gradient is a
    sum over thousands of places; ``row_of`` (vocabulary,) maps a token to its place among them.  ``same`` (N,) tells
    which items have the same caption.
    """

    materials: Materials
    options: ClipOptions
    text: ClipTextEncoder
    text_projection: nn.Module
    image: ClipImageEncoder
    pictures: Pictures
    captions: Captions
    same: Tensor
    rows: Tensor
    row_of: Tensor
    table: Tensor
    trained: Mapping[str, nn.Parameter]
    initial: Mapping[str, Tensor]

    def loss(self, items: Sequence[int], step: int, random: Generator) -> Mapping[str, Tensor]:
        """The contrastive loss among these items, and the share of pictures whose caption is found."""
        tokens = self.captions.batch(items, 0.0, random, short=True)
        places = self._places(tokens, random)
        pictures = self.pictures.batch(items, self.materials.request.data.flip, random)
        captions = self.same[list(items)]
        logits = self._scale() * self.picture_vectors(pictures) @ self.caption_vectors(tokens, places).T
        equal = (captions[:, None] == captions[None, :]).to(logits.device)
        found = equal.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()
        return {"loss": contrastive_loss(logits, equal), "accuracy": found}

    def samples(self) -> list[Pixels]:
        """Eight pictures across, their captions down; each column shows the caption's chances as bars."""
        items = _of_different_captions(self.same)
        tokens = self.captions.tokens[items].long()
        pictures = to_tensor(self.pictures.levels(items).numpy())
        logits = self._scale() * self.picture_vectors(pictures) @ self.caption_vectors(tokens, caption_ends(tokens)).T
        captions = [self.materials.data.items[item].caption for item in items]
        return [
            retrieval_sheet(self.pictures.levels(items).numpy(), captions, logits.detach().softmax(dim=1).cpu().numpy())
        ]

    def weights(self, trained: Mapping[str, Tensor]) -> Weights:
        """A CLIP in the layout of transformers' ``CLIPModel``; ``checkpoint`` takes its text encoder from it."""
        tensors = {name.partition(".")[2]: value for name, value in trained.items() if "." in name}
        learnt = tensors.pop(TOKEN_ROWS.partition(".")[2])
        table = self.table.clone()
        table[self.rows] = learnt.view(len(self.rows), -1).to(table)
        scale = trained["logit_scale"].clamp(max=math.log(LARGEST_SCALE))
        metadata = {"modelspec.architecture": "clip", **clip_metadata(self.text.config, self.image.config)}
        return Weights({**tensors, TABLE: table, "logit_scale": scale}, metadata)

    def picture_vectors(self, pictures: Tensor) -> Tensor:
        """Vectors of length 1, (B, projection) fp32."""
        compute = self.materials.compute
        given = pictures.to(compute.device, compute.dtype)
        return F.normalize(
            torch.cat([self.image(given[i : i + AT_ONCE]) for i in range(0, len(given), AT_ONCE)]).float(), dim=-1
        )

    def caption_vectors(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Vectors of length 1, (B, projection) fp32, of token ids (B, T), each read at its place (B,)."""
        device = self.materials.compute.device
        learnt = self.trained[TOKEN_ROWS].view(len(self.rows), -1)
        words = TokenOverrides(
            F.embedding(self.row_of[tokens].to(device), learnt), torch.ones_like(tokens, dtype=torch.bool).to(device)
        )
        hidden = self.text(tokens.to(device), embeddings=words)
        vectors: Tensor = self.text_projection(hidden[torch.arange(len(tokens)), places])
        return F.normalize(vectors.float(), dim=-1)

    def _places(self, tokens: Tensor, random: Generator) -> Tensor:
        """Where each caption is read: anywhere from its end on, or at its end."""
        ends = caption_ends(tokens)
        if not self.options.from_end:
            return ends
        drawn = torch.rand(len(tokens), generator=random) * (tokens.shape[1] - ends)
        return (ends + drawn.long()).clamp(max=tokens.shape[1] - 1)

    def _scale(self) -> Tensor:
        return self.trained["logit_scale"].clamp(max=math.log(LARGEST_SCALE)).exp()


def contrastive_loss(logits: Tensor, equal: Tensor) -> Tensor:
    """The mean of both cross-entropies of similarities (pictures, captions), arXiv:2103.00020, figure 3.

    Where captions are ``equal`` (B, B; symmetric, true on the diagonal) the right answer is shared among them.
    """
    target = equal.to(logits)
    target = target / target.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def begin_contrastive(options: ClipOptions, materials: Materials) -> ContrastiveTask:
    """The task with its towers, captions and pictures.  Raises RequestError and CheckpointError."""
    model, compute = materials.model, materials.compute
    random = Generator().manual_seed(materials.request.seed)
    image, scale = _image_tower(options, materials.formats, random)
    text = model.text_encoder
    if options.fresh_text:
        initialise(text, text.config.width, text.config.layers, random)
    projection = Linear(text.config.width, image.config.projection, bias=False)
    nn.init.normal_(projection.weight, std=text.config.width**-0.5, generator=random)

    captions = Captions.of([item.caption for item in materials.data.items], model.tokenizer)
    rows = torch.from_numpy(np.union1d(captions.tokens.numpy(), [BOS, EOS])).long()
    table = text.text_model.embeddings.token_embedding.weight.detach().clone()
    if options.fresh_text:
        table[:] = table[0]
    first_rows = _first_rows(table, rows, options, random)
    row_of = torch.zeros(text.config.vocabulary, dtype=torch.long)
    row_of[rows] = torch.arange(len(rows))

    initial = lowered(text, compute, "text.")[1] | lowered(image, compute, "image.")[1]
    initial |= {"text.text_projection.weight": lowered(projection, compute, "")[1]["weight"]}
    # Flat, because it is a table: its rows have nothing to be orthogonal to.
    learnt = nn.Parameter(first_rows.flatten().to(compute.device))
    return ContrastiveTask(
        materials=materials,
        options=options,
        text=text,
        text_projection=projection,
        image=image,
        pictures=Pictures.of(materials.data, image.config.image_size, compute.threads, materials.tell),
        captions=captions,
        same=_same(captions.tokens),
        rows=rows,
        row_of=row_of,
        table=table.cpu(),
        trained=_trained(text, projection, image, learnt, nn.Parameter(scale.to(compute.device))),
        initial=initial,
    )


def _same(tokens: Tensor) -> Tensor:
    """A number for each row (N, 77), the same for the same rows."""
    return torch.from_numpy(np.unique(tokens.numpy(), axis=0, return_inverse=True)[1].reshape(-1))


def _trained(
    text: ClipTextEncoder, projection: nn.Module, image: ClipImageEncoder, rows: nn.Parameter, scale: nn.Parameter
) -> dict[str, nn.Parameter]:
    parameters = {f"text.{name}": value for name, value in text.named_parameters() if name != TABLE}
    parameters |= {f"text.text_projection.{name}": value for name, value in projection.named_parameters()}
    parameters |= {f"image.{name}": value for name, value in image.named_parameters()}
    parameters |= {TOKEN_ROWS: rows, "logit_scale": scale}
    text.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


def _image_tower(options: ClipOptions, formats: Formats, random: Generator) -> tuple[ClipImageEncoder, Tensor]:
    """The image tower in fp32, and the logarithm of the scale it comes with."""
    if options.image_tower:
        tower = ImageTower.load(existing(options.image_tower, "CLIP"), formats)
        return tower.encoder, tower.logit_scale.clone()
    config = ClipImageConfig(
        options.width,
        options.layers,
        options.heads,
        4 * options.width,
        options.image_size,
        options.patch,
        options.projection,
    )
    encoder = ClipImageEncoder(config)
    initialise(encoder, config.width, config.layers, random)
    return encoder.eval(), torch.tensor(math.log(FIRST_SCALE))


@torch.no_grad()
def initialise(tower: nn.Module, width: int, layers: int, random: Generator) -> None:
    """New weights for a tower, with the deviations of openai/CLIP ``clip/model.py`` ``initialize_parameters``."""
    inner = width**-0.5
    outer = inner * (2 * layers) ** -0.5
    deviations = {
        "token_embedding": FRESH_DEVIATION,
        "text_model.embeddings.position_embedding": FRESH_DEVIATION / 2,
        "fc1": (2 * width) ** -0.5,
        "fc2": outer,
        "out_proj": outer,
    }
    for name, parameter in tower.named_parameters():
        if parameter.ndim == 1 and "class_embedding" not in name:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        fan_in = parameter[0].numel() if "patch_embedding" in name else width
        deviation = next((value for part, value in deviations.items() if part in name), fan_in**-0.5)
        parameter.normal_(0.0, deviation, generator=random)


def _first_rows(table: Tensor, rows: Tensor, options: ClipOptions, random: Generator) -> Tensor:
    """The table's rows as they begin to learn: where the base never taught a word, all such words share one row."""
    first = table[rows].clone()
    if options.fresh_text:
        return first.normal_(0.0, FRESH_DEVIATION, generator=random)
    if options.new_words == "keep":
        return first
    _, number, counts = np.unique(table.numpy().view(f"V{table[0].nbytes}"), return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return first
    is_new = torch.from_numpy(number.ravel() == counts.argmax())
    taught = table[~is_new]
    deviation = NEW_WORD_SHARE * float(taught.std()) if len(taught) else FRESH_DEVIATION
    noise = torch.empty_like(first).normal_(0.0, deviation, generator=random)
    return torch.where(is_new[rows][:, None], first + noise, first)


def _of_different_captions(same: Tensor) -> list[int]:
    """Up to eight items with different captions, from all over the set."""
    firsts = np.sort(np.unique(same.numpy(), return_index=True)[1])
    return [
        int(firsts[place]) for place in np.linspace(0, len(firsts) - 1, min(SHOWN, len(firsts))).round().astype(int)
    ]


def retrieval_sheet(pictures: Pixels, captions: Sequence[str], chances: np.ndarray) -> Pixels:
    """Pictures (P, side, side, 3) across, captions down, and where they meet a bar as long as ``chances`` (P, C).

    Bars of the captions that belong to the pictures are green.  At 64 px a picture: (64 + 24 C, 300 + 68 P, 3).
    """
    cell, row, left = 68, 24, 300
    sheet = Image.new("RGB", (left + cell * len(pictures), 64 + row * len(captions)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture).resize((64, 64), Image.Resampling.NEAREST), (left + cell * column, 0))
    for line, caption in enumerate(captions):
        top = 64 + row * line
        shown = caption.encode("latin-1", "replace").decode("latin-1")
        draw.text((4, top + 6), shown if len(shown) <= 48 else f"{shown[:45]}...", fill="black", font=font)
        for column in range(len(pictures)):
            x = left + cell * column
            colour = "#2e9e4f" if line == column else "#c0603a"
            draw.rectangle((x, top + 4, x + 63, top + 19), fill="#eeeeee")
            draw.rectangle((x, top + 4, x + round(63 * float(chances[column, line])), top + 19), fill=colour)
    return np.asarray(sheet)
