"""Which program's version wrote a text, and the old behaviour that it stands for.

AUTOMATIC1111 writes ``v1.6.0``, ``1.10.1`` or, between releases, ``v1.6.0-2-gabc1234`` (two commits after), Forge
``f2.0.1v1.10.1-previous-669-gdfdcbab6`` (its own version before the one that it was made of), we ``webui 0.1.0``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VERSION = re.compile(
    r"(?P<forge>f[\d.]+)?v?(\d+)\.(\d+)(?:\.(\d+))?(?P<candidate>-?rc\w*)?(?P<rest>-.*)?", re.IGNORECASE
)
_LONGEST = 200
_COMMITS = re.compile(r"-(\d+)(?:-|$)")

Release = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Version:
    """A version of AUTOMATIC1111, or of the one that Forge was made of.

    ``release`` compares: three numbers, -1 for a release candidate, and the commits since then.
    """

    release: Release
    is_forge: bool = False

    @property
    def names_its_vae(self) -> bool:
        """Whether a text of this version names a VAE file that was in use."""
        return self.release >= (1, 6, 0, -1, 0)


TIMELINES_COUNT_ON: Release = (1, 6, 0, 0, 0)
"""Since then numbers in prompt editing count on through the second pass, and contexts are padded anew."""
EXACT_ALPHAS: Release = (1, 7, 0, 0, 225)
"""Since then the noise table is not rounded to half precision."""
REFINER_BY_NOISE: Release = (1, 8, 0, 0, 0)
"""Since then the refiner takes over at a share of the noise, not of the steps."""


def parse_version(text: str) -> Version | None:
    """The version that a text names, None when it is no version of AUTOMATIC1111 or Forge."""
    match = _VERSION.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        return None
    _, major, minor, patch, candidate, rest = match.groups()
    commits = _COMMITS.match(rest or "")
    numbers = [int(number[:9]) for number in (major, minor, patch or "0", commits[1] if commits else "0")]
    release = (numbers[0], numbers[1], numbers[2], -1 if candidate else 0, numbers[3])
    return Version(release, match["forge"] is not None)
