"""The conditioning module as the program sees it: its options, its words in a picture's text, its units by API.

No torch at the top: the server process reads this; ``steering`` does the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from webui.preprocessors import Preprocessor
from webui.preprocessors.canny import register_preprocessors as canny

from .infotext import read, write
from .network_preprocessors import network_preprocessors
from .preprocessors import named, preprocessors
from .short_hash import short_hash
from .sources import preview
from .unit import NAME, UNITS, Unit, units_of

if TYPE_CHECKING:
    from webui.conditioning import Contribution, Pictures
    from webui.model import Model
    from webui.request import GenerationRequest
    from webui.result import Pixels

    from .networks import Networks


class ControlNetModule:
    """ControlNet and its kin.  Loaded networks, and the short hashes of their files, are kept between jobs."""

    name: str = NAME
    label = NAME
    options: type = Unit
    units = UNITS
    order = 50

    def __init__(self) -> None:
        """Nothing is loaded yet."""
        self._networks: Networks | None = None
        self._hashes: dict[str, str] = {}
        self._known: dict[str, Preprocessor] = {
            one.name: one for one in (*preprocessors(), *canny(), *network_preprocessors())
        }

    def prepare(self, options: Unit, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """What a unit contributes to a pass.  Pure, but that networks stay loaded for the next job."""
        from .networks import Networks
        from .steering import Job, contribution

        self._networks = self._networks or Networks()
        if options.model:
            self._hashes[options.model] = short_hash(pictures.model_file("controlnet", options.model))
        return contribution(Job(options, model, request, pictures, self._networks))

    def write_infotext(self, options: Unit, number: int) -> Mapping[str, str]:
        """``ControlNet N`` in a picture's text."""
        preprocessor = self._known.get(options.preprocessor)
        return write(options, number, preprocessor, self._hashes.get(options.model, ""))

    def read_infotext(self, fields: dict[str, str]) -> list[dict[str, Any]]:
        """The units that a picture's text tells."""
        return read(fields, named(self._known.values()))

    def always_on(self, args: Sequence[Any]) -> list[dict[str, Any]]:
        """The units that ``alwayson_scripts.ControlNet.args`` asks for."""
        return units_of(args, named(self._known.values()))

    def preview(self, options: Unit, pictures: Pictures) -> Pixels:
        """The control picture that the page shows."""
        return preview(options, pictures)
