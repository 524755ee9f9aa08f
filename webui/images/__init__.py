"""Pictures as numbers: reading, resizing, masks and grids, with numpy and Pillow only.

Where a picture must equal AUTOMATIC1111's, the operations are the same Pillow operations in the same order.
"""
