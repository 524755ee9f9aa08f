"""Teaching: pictures with captions -> weights, by the same networks that draw.

The three steps of Stable Diffusion's training, as functions: the VAE maps pictures to latents, the CLIP text encoder
maps captions to context, noise of random strength is added and the UNet learns to say what was added.

    request.py      what was asked: one frozen record, the same from page, API and command line        (no torch)
    data.py         a folder of pictures with captions -> items in buckets of one size each            (no torch)
    order.py        which items make up the batch of a step: a function of the seed and the step        (no torch)
    kinds/        * what can be taught: a checkpoint, a LoRA, an embedding, a ControlNet, the VAE, a CLIP
    latents.py      items -> latents, computed once and kept
    captions.py     captions -> context, with words dropped
    contrastive.py  pictures and captions -> the loss of a CLIP; scoring.py reads what it made
    objective.py    latents, noise and context -> the loss
    unet_step.py    a batch -> the loss of the UNet's answer: the step of every kind but the VAE and the CLIP
    low_rank.py     a frozen network's layers with low-rank changes that learn (LoRA)
    control.py      what ControlNet and T2I-Adapter have in common: a frozen model, a control picture for each picture
    optimisers.py   gradients -> weights: AdamW, Muon; the moving average of weights
    state.py        all of a run on disk, written whole or not at all
    loop.py         the run: steps, checkpoints, samples; pausable, resumable bit for bit
    export.py       weights -> a file that this and other programs load, with the recipe of how it was made
    starter_data    the pictures that the embedded model is taught with

Everything random in step n is drawn from (seed, n), never from a generator that runs on: a run that was killed goes on
from its last checkpoint to the same bits as one that was not.
"""
