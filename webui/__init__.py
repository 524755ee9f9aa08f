"""A Stable Diffusion web UI: from a prompt to a picture that can prove how it was made.

The folders read like the data flow; an import points only upwards in this list (``tests/test_layers.py`` checks it).

    errors.py       every error a person can meet
    records.py      frozen records <-> plain values, checked when they are built
    option_boxes.py a part's options record -> boxes, checks, schema
    request.py      what was asked: one frozen record, the same from page, API and command line
    result.py       what came out, and the facts of the place it was made in
    hooks.py        the extension contract on one page
    prompt/         text -> weighted chunks of tokens                    (no torch)
    images/         pictures as numbers: resize, masks, fill             (no torch)
    checkpoints/    file -> {name: tensor}; the index of models/         (torch only inside functions)
    device.py       what differs between CPU, CUDA, MPS and XPU
    networks/       tensors in, tensors out: UNet, VAE, CLIP             (torch)
    diffusion/      noise table, schedules, prediction, guidance, noise
    model.py        one loaded model and its constants
    families/     * recognise a checkpoint, build its Model
    preprocessors/* picture -> control picture
    conditioning/ * prompt and pictures -> what the UNet reads
    samplers/     * noise -> clean latent, one integrator per file
    scripts/        one request -> several, and their overview
    latents/        latent <-> picture, live previews
    upscalers/    * small picture or latent -> large one
    faces/        * faces found in a picture and mended
    extras.py       a finished picture made larger, its faces mended
    pipeline/       txt2img, img2img, inpaint as functions
    metadata/       request <-> text inside an image file; recipe and verdict
    training/       pictures with captions -> weights; its kinds/ is a drop-in folder too
    settings.py     read once at start, frozen, handed down
    plugins/        finds built-in parts and extensions, builds the plugin manager
    engine/         the one place with state: jobs, worker process, events, outputs
    api/            REST            ui/  the page (neither sees the other)
    extension_commands.py  extensions installed on the command line
    guard.py        in front of everything: who may talk to the server, which files it hands out
    module_flags.py the flags of modules' options for the command line
    server_flags.py flags of the server that few people need
    server.py       one engine, one web app        cli.py  serve, generate, train, …

A folder with * is a drop-in folder: one thing per file, picked up because the file is there.  Modules that the server
process imports (drop-in folders, metadata, engine except the worker) import torch only inside functions, so that the
page is up before torch is.
"""

from __future__ import annotations

__version__ = "0.1.0"
