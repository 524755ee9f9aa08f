"""Widgets of our own: ``gr.HTML`` subclasses with their JavaScript in ``assets/``.

Each stands in a module of its own because Gradio writes a type stub beside any module that defines a component.
"""
