"""The editor of ``styles.csv``: one for the page, opened from either tab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from webui.errors import NotFoundError, RequestError
from webui.prompt.styles import Style, Styles
from webui.ui.notices import EVENT, connect, sentence

if TYPE_CHECKING:
    from webui.engine.engine import Engine


class StylesEditor:
    """A panel over the page: choose or name a style, write its texts, save or delete it.

    ``watch`` adds a list of styles that is to follow what is saved; :meth:`open_from` lets a button open the editor.
    """

    def __init__(self, engine: Engine, notice: Any) -> None:
        self.engine = engine
        self.notice = notice
        self.lists: list[Any] = []
        with gr.Column(visible=False, elem_id="styles_editor", elem_classes=["dialog"]) as self.panel:
            gr.HTML(
                "<h2>Styles</h2><p class='muted'>Kept in <code>styles.csv</code>. <code>{prompt}</code> in a style is "
                "where the prompt goes; without it the style comes after the prompt.</p>"
            )
            self.name = gr.Dropdown(
                [],
                value=None,
                label="Style",
                allow_custom_value=True,
                interactive=True,
                elem_id="styles_edit_select",
            )
            self.prompt = gr.Textbox(label="Prompt", lines=3, interactive=True, elem_id="styles_edit_prompt")
            self.negative = gr.Textbox(
                label="Negative prompt", lines=2, interactive=True, elem_id="styles_edit_neg_prompt"
            )
            with gr.Row(elem_classes=["dialog-buttons"]):
                self.save = gr.Button("Save", variant="primary", elem_id="styles_edit_save", min_width=80)
                self.delete = gr.Button("Delete", elem_id="styles_edit_delete", min_width=80)
                self.close = gr.Button("Close", elem_id="styles_edit_close", min_width=80)

    def watch(self, styles: Any) -> None:
        """Let a dropdown of styles follow the file."""
        self.lists.append(styles)

    def open_from(self, button: Any, styles: Any, prompt: Any, negative: Any) -> None:
        """Let ``button`` open the editor with the chosen style of the tab, or with its prompts."""
        connect(
            button.click,
            self._open,
            [styles, prompt, negative],
            [self.panel, self.name, self.prompt, self.negative],
            self.notice,
        )

    def wire(self) -> None:
        """Connect the editor's own events, once all lists are known."""
        texts = [self.prompt, self.negative]
        after = [*self.lists, self.name, *texts]
        connect(self.name.input, self._choose, self.name, texts, self.notice)
        connect(self.save.click, self._save, [self.name, *texts], after, self.notice)
        connect(self.delete.click, self._delete, [self.name, *self.lists], after, self.notice)
        self.close.click(lambda: gr.Column(visible=False), None, self.panel, **EVENT)

    def _open(self, chosen: Sequence[str] | None, prompt: str, negative: str) -> list[Any]:
        known = self.engine.styles().by_name
        style = next((known[name] for name in chosen or () if name in known), None)
        shown = style or Style("", prompt or "", negative or "")
        name = gr.Dropdown(choices=list(known), value=style.name if style else None)
        return [gr.Column(visible=True), name, shown.prompt, shown.negative_prompt]

    def _choose(self, name: str | None) -> list[Any]:
        style = self.engine.styles().by_name.get(name or "")
        return [style.prompt, style.negative_prompt] if style else [gr.skip(), gr.skip()]

    def _save(self, name: str | None, prompt: str | None, negative: str | None) -> list[Any]:
        wanted = (name or "").strip()
        if not wanted:
            raise RequestError("The style has no name; type one.")
        style = Style(wanted, prompt or "", negative or "")
        self.engine.save_styles(Styles({**self.engine.styles().by_name, wanted: style}))
        told = sentence(f'The style "{wanted}" is saved.', good=True)
        names = list(self.engine.styles().by_name)
        lists = [gr.Dropdown(choices=names) for _ in self.lists]
        return [*lists, gr.Dropdown(choices=names, value=wanted), gr.skip(), gr.skip(), told]

    def _delete(self, name: str | None, *chosen: Sequence[str] | None) -> list[Any]:
        styles = dict(self.engine.styles().by_name)
        if styles.pop(name or "", None) is None:
            raise NotFoundError(f'There is no style "{name or ""}".')
        self.engine.save_styles(Styles(styles))
        told = sentence(f'The style "{name}" is deleted.', good=True)
        left = [
            gr.Dropdown(choices=list(styles), value=[one for one in names or () if one in styles]) for names in chosen
        ]
        return [*left, gr.Dropdown(choices=list(styles), value=None), "", "", told]
