"""The values of plugins' settings and flags: read in the server as they are now, in the worker as a job begins."""

from __future__ import annotations

from webui.engine.options import DEFAULTS, Options
from webui.plugins.manager import Plugins
from webui.plugins.own_settings import OwnSettings, finder, flag_records, registered_flags, registered_sections
from webui.settings import Settings


def open_options(settings: Settings, plugins: Plugins) -> Options:
    """The settings of this installation, those of plugins among them.  Raises RequestError for a damaged file."""
    return Options(settings.state_dir / "config.json", registered_sections(plugins, DEFAULTS))


def own_settings(options: Options, settings: Settings, plugins: Plugins) -> OwnSettings:
    """What plugins are handed.  Raises RequestError for a flag whose value cannot be."""
    flags = flag_records(registered_flags(plugins), settings.extension_flags)
    return OwnSettings(options.settings_of, finder("group of flags", flags))
