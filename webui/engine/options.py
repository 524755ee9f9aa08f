"""The settings that AUTOMATIC1111 keeps in ``config.json``, under its names, and what they mean for a request.

Its clients read and write them (``/sdapi/v1/options``) and change them for one job (``override_settings``).  Those that
can change a pixel are turned into fields of the request, so that a picture's metadata holds them and a change of a
setting never touches a job that is queued.  The others are kept and told again, and change nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

from webui.engine.outputs import output_error, write_atomically
from webui.errors import RequestError, unknown_name
from webui.option_boxes import all_boxes
from webui.option_boxes import checked as checked_record
from webui.plugins.own_settings import SettingsSection, fitting, key_of, plain_fields
from webui.records import check_plain, check_range, check_text, shown
from webui.request import Emphasis, RandomSource, RefinerPasses

Snapshot = Mapping[str, Any]
"""Every setting with its value, as it was at one moment.  Read-only."""

DEFAULTS: Snapshot = MappingProxyType(json.loads((files("webui.engine") / "option_defaults.json").read_text("utf-8")))
"""Every known key with AUTOMATIC1111's default (1.10.1, ``modules/shared_options.py``)."""
FIXED = frozenset({"sd_checkpoint_hash", "disabled_extensions", "disable_all_extensions", "restore_config_state_file"})
"""Keys that are told and not taken: facts, and what must not be changed by a request."""
RESTRICTED = frozenset({"api_enable_requests", "api_forbid_local_requests", "api_useragent"})
"""Keys that guard this computer: the page may change them, no client and no job."""
FIXED_PREFIXES = ("outdir_", "temp_dir")
CHECKPOINT = "sd_model_checkpoint"
CHECKPOINT_HASH = "sd_checkpoint_hash"

CHOICES: Mapping[str, tuple[str, ...]] = {
    "randn_source": tuple(RandomSource),
    "emphasis": tuple(Emphasis),
    "hires_fix_refiner_pass": tuple(RefinerPasses),
    "sd_noise_schedule": ("Default", "Zero Terminal SNR"),
    "samples_format": ("png", "jpg", "jpeg", "webp"),
    "infotext_styles": ("Ignore", "Apply", "Discard", "Apply if any"),
}
RANGES: Mapping[str, tuple[float, float]] = {
    "CLIP_stop_at_last_layers": (1, 12),
    "comma_padding_backtrack": (0, 74),
    "eta_ddim": (0, 1),
    "eta_ancestral": (0, 1),
    "s_churn": (0, 100),
    "s_tmin": (0, 10_000),
    "s_tmax": (0, 10_000),
    "s_noise": (0, 2),
    "sigma_min": (0, 10_000),
    "sigma_max": (0, 10_000),
    "rho": (0, 1000),
    "beta_dist_alpha": (0.01, 100),
    "beta_dist_beta": (0.01, 100),
    "uni_pc_order": (1, 50),
    "s_min_uncond": (0, 10_000),
    "skip_early_cond": (0, 1),
    "token_merging_ratio": (0, 0.9),
    "token_merging_ratio_img2img": (0, 0.9),
    "token_merging_ratio_hr": (0, 0.9),
    "initial_noise_multiplier": (0, 2),
    "img2img_extra_noise": (0, 1),
    "eta_noise_seed_delta": (0, 2**53 - 1),
    "code_former_weight": (0, 1),
    "jpeg_quality": (1, 100),
}


@dataclass
class Options:
    """The settings of one installation, kept in the file at ``path``: flat JSON, written whole or not at all.

    A ``config.json`` of AUTOMATIC1111 can lie there; keys that are not known are kept in it.  ``sections`` are the
    settings of plugins, which no job changes.  Any thread.
    """

    path: Path
    sections: Sequence[SettingsSection] = ()
    _changed: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._changed = _read(self.path)
        for section in self.sections:
            own = self._of(section, self._changed)
            kept = fitting(section, own)
            for name in own.keys() - kept.keys():
                del self._changed[key_of(section, name)]

    def snapshot(self, overrides: Mapping[str, Any] | None = None) -> Snapshot:
        """The settings as they are now, with ``overrides`` over them, which stay in the snapshot alone.

        Unknown and restricted keys of ``overrides`` are left out.  Raises RequestError for values that a setting cannot
        have.
        """
        with self._lock:
            own = {key: value for key, value in self._changed.items() if key in DEFAULTS}
            more = {
                key_of(section, name): value
                for section in self.sections
                for name, value in self._values(section).items()
            }
        return MappingProxyType({**DEFAULTS, **own, **more, **_checked(unrestricted(overrides or {}))})

    def section(self, name: str) -> SettingsSection:
        """The section of this name.  Raises RequestError."""
        found = {section.name: section for section in self.sections}
        if name not in found:
            raise unknown_name("section of settings", name, found)
        return found[name]

    def settings_of(self, name: str) -> Any:
        """The record of a section as it is now.  Raises RequestError when there is none."""
        section = self.section(name)
        with self._lock:
            return self._record(section, self._changed)

    def reset(self, name: str) -> None:
        """Give a section its defaults again, and save.  Raises RequestError, OutputError."""
        section = self.section(name)
        own = {key_of(section, box.name) for box in all_boxes(section.options)}
        with self._lock:
            self._save({key: value for key, value in self._changed.items() if key not in own})

    def unguarded(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The changes that a client may make: not those of :data:`RESTRICTED` and of a section's guarded fields."""
        guarded = {key_of(section, name) for section in self.sections for name in section.guarded}
        return {key: value for key, value in unrestricted(changes).items() if key not in guarded}

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set several and save.  Unknown keys are left out.  Raises RequestError, OutputError; then none is set."""
        taken = _checked(changes)
        with self._lock:
            for section in self.sections:
                if own := self._of(section, changes):
                    record = self._record(section, {**self._changed, **changes})
                    taken |= {key_of(section, name): getattr(record, name) for name in own}
            self._save({**self._changed, **taken})

    def _of(self, section: SettingsSection, values: Mapping[str, Any]) -> dict[str, Any]:
        """A section's part of values by key, by field."""
        keys = {box.name: key_of(section, box.name) for box in all_boxes(section.options)}
        return {name: values[key] for name, key in keys.items() if key in values}

    def _record(self, section: SettingsSection, values: Mapping[str, Any]) -> Any:
        return checked_record(section.options, self._of(section, values), section.label)

    def _values(self, section: SettingsSection) -> dict[str, Any]:
        return plain_fields(self._record(section, self._changed), all_boxes(section.options))

    def _save(self, changed: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(changed, indent=4, ensure_ascii=False).encode())
        except OSError as error:
            raise output_error(self.path.parent, error) from error
        self._changed = changed


def unrestricted(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that a client may make."""
    return {key: value for key, value in changes.items() if key not in RESTRICTED}


def _read(path: Path) -> dict[str, Any]:
    """What a file says; values that a setting cannot have are left out.  Raises RequestError for another file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"The settings {path} cannot be read ({error}); mend the file or move it away.") from error
    if not isinstance(found, dict):
        raise RequestError(f"The settings {path} are no JSON object; mend the file or move it away.")
    kept: dict[str, Any] = {}
    for key, value in found.items():
        try:
            kept[key] = checked(key, value) if key in DEFAULTS else value
        except RequestError:
            continue
    return kept


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: checked(key, value)
        for key, value in changes.items()
        if key in DEFAULTS and key not in FIXED and not key.startswith(FIXED_PREFIXES)
    }


def checked(key: str, value: Any) -> Any:
    """A setting's value in the setting's own kind.  Raises RequestError."""
    default = DEFAULTS[key]
    check_plain(key, value)
    if isinstance(default, bool):
        if value in (0, 1):  # also True and False
            return bool(value)
        raise RequestError(f"The setting {key} is {shown(value)}; it must be true or false.")
    if isinstance(default, int | float):
        return _number(key, value, default)
    if key in CHOICES and value not in CHOICES[key]:
        raise RequestError(f"The setting {key} is {shown(value)}; it must be one of {', '.join(CHOICES[key])}.")
    if isinstance(default, str):
        check_text(f"The setting {key}", value)
    elif isinstance(default, list) and not isinstance(value, list):
        raise RequestError(f"The setting {key} is {shown(value)}; it must be a list.")
    elif default is None and value is not None:
        check_text(f"The setting {key}", value)
    return value


def _number(key: str, value: Any, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"The setting {key} is {shown(value)}; it must be a number.")
    if isinstance(default, int) and value != int(value):
        raise RequestError(f"The setting {key} is {shown(value)}; it must be a whole number.")
    low, high = RANGES.get(key, (-(2.0**53), 2.0**53))
    check_range(f"The setting {key}", value, low, high)
    return int(value) if isinstance(default, int) else float(value)
