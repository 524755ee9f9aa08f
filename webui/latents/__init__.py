"""latent <-> picture, and the quick preview of a latent."""
