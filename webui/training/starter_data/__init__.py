"""The data set of the embedded model: drawings composed into captioned pictures, the same for everybody.

    python -m webui.training.starter_data OUT --count 30000 --seed 1

    vocabulary.py   the words: objects, colours, scenes, styles, synonyms; the held-out combinations
    artwork.py      two pinned npm packages -> the members needed, in memory
    sprites.py      drawings -> square RGBA sprites; recolouring, line art, plain shapes
    scene.py        what one picture shows (``Facts``), drawn at random but never a held-out combination
    captions.py     facts -> a sentence
    compose.py      facts -> pixels
    dataset.py      files
    lessons.py      the small folders that the LoRAs and the embedding beside the model learn from
    __main__.py     the command

Picture i depends on (seed, i) alone, so several processes write the same files and a larger count only adds to them.
Needs the extra ``starter-data`` (resvg, for the flat drawings); no torch.
"""

from __future__ import annotations
