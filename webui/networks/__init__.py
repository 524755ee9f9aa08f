"""tensors in, tensors out: the CLIP text encoder, the UNet, the VAE, and the adapters ControlNet and T2I-Adapter.

Each network is built from a config whose sizes are read off tensor shapes, and its parameters carry the names of a
CompVis checkpoint, so a file's tensors are assigned without a key map.  Build on the ``meta`` device, then
``load_state_dict(..., assign=True)``; no module holds a tensor that is not in the file.
"""
