"""request <-> text inside an image file; the recipe, and the verdict on a reproduction."""
