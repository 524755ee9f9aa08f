"""``python -m webui`` is the command line."""

from __future__ import annotations

import sys

from webui.cli import console

if __name__ == "__main__":
    sys.exit(console())
