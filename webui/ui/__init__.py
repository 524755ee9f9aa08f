"""The page, made with Gradio: ``app`` assembles it, ``form`` translates widgets to requests, ``tabs/`` is drop-in."""
