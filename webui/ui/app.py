"""Assembles the page and puts it on the web application; called by ``server``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import gradio as gr

from webui import __version__
from webui.errors import ExtensionError, WebUIError
from webui.settings import PROJECT_ROOT
from webui.ui import lists, texts
from webui.ui.assets import read_asset
from webui.ui.context import PageContext
from webui.ui.fields import SWITCHES, TABLE
from webui.ui.form import DEFAULTS, RECOMMENDED, follow_recommendation, recommendation
from webui.ui.inputs import Inputs, field_update
from webui.ui.notices import EVENT, connect, sentence
from webui.ui.panel_places import check_panels
from webui.ui.styles import StylesEditor
from webui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from fastapi import FastAPI

    from webui.engine.engine import Engine

UPLOAD_LIMIT = "64mb"
VISITORS_KEPT = 64
"""Pages whose component data gradio keeps; each page load costs some hundred kB."""
CACHE_SWEEP_S = (3600, 86400)
"""How often gradio's upload folder is swept, and the age of what goes."""


def mount(app: FastAPI, engine: Engine, path: str = "/") -> FastAPI:
    """``app`` with the page on ``path``; every other route must be registered before.

    Of the disk only the outputs folder is served; uploads go where ``GRADIO_TEMP_DIR`` says.
    """
    engine.settings.outputs_dir.mkdir(parents=True, exist_ok=True)
    gr.set_static_paths([engine.settings.outputs_dir])
    page = build_page(engine)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path=path,
        theme=_theme(),
        css="".join(map(read_asset, ("page.css", "cards.css", "modules.css", "paint.css", "extensions.css"))),
        head=f"<script>{read_asset('page.js', hints=_hints())}</script>{_CANVAS}{_ICON}",
        run_history=False,
        footer_links=[],
        max_file_size=UPLOAD_LIMIT,
        show_error=True,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
    )
    # Without this line gradio 6 does not check file paths on a mounted page: any visitor could read any file.
    page.has_launched = True
    page.state_session_capacity = VISITORS_KEPT
    return mounted


def build_page(engine: Engine) -> Any:
    """The page as ``gr.Blocks``: the bar on top, notes, and the tabs that the engine knows."""
    initial = dict(DEFAULTS)
    chosen = _default_entry(engine)
    if chosen is not None:
        initial |= recommendation(chosen.native_size, chosen.defaults)
    broken_tabs: list[str] = []
    with gr.Blocks(title="webui", analytics_enabled=False, delete_cache=CACHE_SWEEP_S, fill_width=True) as page:
        with gr.Row(elem_id="quicksettings"):
            gr.HTML(f'<h1 class="brand">{_LOGO}<span>webui</span></h1>', elem_id="brand")
            top = Inputs("", initial, {name: lists.LISTS[name](engine) for name in ("checkpoint", "vae")})
            top.dropdown("checkpoint", value=chosen.name if chosen is not None else None, min_width=200)
            refresh = gr.Button(
                "Refresh", size="sm", elem_id="refresh_sd_model_checkpoint", elem_classes=["tool", "icon-refresh"]
            )
            top.dropdown("vae", min_width=120)
            top.slider("clip_skip", min_width=120)
            gr.HTML(_BAR_LINKS, elem_id="bar_links")
        note = gr.HTML(_note(engine, chosen), elem_id="model_note")
        problem_lines = gr.HTML(elem_id="problems")
        notice = Notice(elem_id="notice")
        editor = StylesEditor(engine, notice)
        # No gr.State: with one Gradio keeps a connection of every page open, and a browser has six for a server.
        recommended = gr.JSON({name: initial[name] for name in RECOMMENDED}, visible=False)
        check_panels(engine.plugins)
        with gr.Tabs(elem_id="tabs") as tabs:
            context = PageContext(
                engine=engine, top=top.made, tabs=tabs, notice=notice, styles_editor=editor, initial=initial
            )
            context.follow_lists({"vae": top.made["vae"]})
            for tab in sorted(engine.tabs(), key=lambda one: (one.order, one.id)):
                with gr.Tab(tab.label, id=tab.id, elem_id=f"tab_{tab.id}"):
                    try:
                        tab.build(context)
                    except Exception as error:  # an extension's tab must not take the page with it
                        if tab.build.__module__.startswith("webui."):
                            raise
                        broken_tabs.append(str(_broken(tab.id, error)))
                        gr.HTML(texts.notes(broken_tabs[-1:]))
        context.finish()
        editor.wire()
        gr.HTML(_footer(), elem_id="footer")
        _wire(page, engine, context, refresh, note, recommended)
        page.load(lambda: texts.problems([*engine.problems(), *broken_tabs]), None, problem_lines, **EVENT)
    return page


def _wire(page: Any, engine: Engine, context: PageContext, refresh: Any, note: Any, recommended: Any) -> None:
    checkpoint = context.checkpoint
    fields = [form[name] for form in context.forms.values() for name in RECOMMENDED]

    followed = [component for _, component in context.folder_lists]

    def listed(current: str | None) -> list[Any]:
        entries = engine.checkpoints()
        entry = next((one for one in entries if one.name == current), None) or _default_entry(engine)
        value = entry.name if entry is not None else None
        filled = {name: gr.Dropdown(choices=list(lists.LISTS[name](engine))) for name, _ in context.folder_lists}
        others = [filled[name] for name, _ in context.folder_lists]
        return [gr.Dropdown(choices=lists.checkpoints(engine), value=value), _note(engine, entry), *others]

    def look_again(current: str | None) -> list[Any]:
        engine.refresh()
        count = len(engine.checkpoints())
        return [*listed(current), sentence(f"{count} checkpoint{'' if count == 1 else 's'} found.", good=True)]

    def choose(name: str | None, before: Mapping[str, Any], *values: Any) -> list[Any]:
        entry = next((one for one in engine.checkpoints() if one.name == name), None)
        if entry is None:
            return [gr.skip()] * (2 + len(values))
        after = recommendation(entry.native_size, entry.defaults)
        updates: list[Any] = []
        for start in range(0, len(values), len(RECOMMENDED)):
            current = dict(zip(RECOMMENDED, values[start : start + len(RECOMMENDED)], strict=True))
            changes = follow_recommendation(current, before or {}, after)
            updates += [field_update(n, changes[n]) if n in changes else gr.skip() for n in RECOMMENDED]
        return [_note(engine, entry), after, *updates]

    def choose_card(event: gr.EventData, before: Mapping[str, Any], *values: Any) -> list[Any]:
        name = engine.library.find(str(event.name)).name
        return [gr.Dropdown(choices=lists.checkpoints(engine), value=name), *choose(name, before, *values)]

    page.load(listed, checkpoint, [checkpoint, note, *followed], **EVENT)
    refresh.click(look_again, checkpoint, [checkpoint, note, *followed, context.notice], **EVENT)
    connect(checkpoint.input, choose, [checkpoint, recommended, *fields], [note, recommended, *fields], context.notice)
    for cards in context.cards:
        outputs = [checkpoint, note, recommended, *fields]
        connect(cards.chosen, choose_card, [recommended, *fields], outputs, context.notice)


def _broken(tab: str, error: Exception) -> WebUIError:
    return ExtensionError(f'The tab "{tab}" could not be built ({type(error).__name__}: {error}); it is left empty.')


def _default_entry(engine: Engine) -> Any:
    """The checkpoint that a fresh page shows (the engine lists it first), or None."""
    return next(iter(engine.checkpoints()), None)


def _note(engine: Engine, entry: Any) -> str:
    folder = engine.settings.models_dir / "Stable-diffusion"
    if folder.is_relative_to(PROJECT_ROOT):
        folder = folder.relative_to(PROJECT_ROOT)
    if entry is None:
        return texts.no_model(str(folder))
    return texts.model_note(note=entry.note, examples=entry.examples, folder=str(folder))


def _hints() -> str:
    """The tooltips as a JavaScript object: the end of an element id -> a sentence."""
    hints = {field.element or name: field.hint for name, field in TABLE.items() if field.hint}
    return json.dumps(hints | {name: hint for name, (_, _, _, hint) in SWITCHES.items()})


def _footer() -> str:
    return (
        f'<p>webui {escape(__version__)} · <a href="docs" target="_blank" rel="noopener">API</a> · '
        "every picture carries its recipe</p>"
    )


def _theme() -> Any:
    """Warm accents on neutral greys, with the fonts that gradio brings along: nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        secondary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.zinc,
        # The semi-bold file that gradio brings holds only some letters; the bold one is whole.
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_sm,
        text_size=gr.themes.sizes.text_sm,
    )


_LOGO = read_asset("logo.svg").strip()
_ICON = f'<link rel="icon" href="data:image/svg+xml,{quote(_LOGO)}">'
_CANVAS = (
    "<script>window.webui.canvasIn = (element, trigger, props, watch) => {\n" + read_asset("canvas.js") + "};\n"
    "window.webui.painterIn = (element, id, scene, keep) => {\n" + read_asset("paint.js") + "};</script>"
)
"""The picture canvas and the painter for a widget that has them in itself; a canvas that is a component runs the same
script."""
_BAR_LINKS = '<button type="button" id="theme_toggle" class="bar-button" aria-label="Dark or light"></button>'
