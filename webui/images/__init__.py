"""Pictures as numbers: resizing, masks and fills, with numpy and Pillow only."""
