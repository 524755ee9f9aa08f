"""What is here, in the shapes of AUTOMATIC1111's lists: samplers, models, styles, memory, flags."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from webui.checkpoints.formats import Formats
from webui.checkpoints.library import FOLDERS, ModelEntry
from webui.checkpoints.loaders import Header
from webui.engine.engine import Engine
from webui.errors import WebUIError
from webui.plugins.discovery import discover
from webui.plugins.shelf import record_of
from webui.plugins.sources import Kind
from webui.samplers import Sampler
from webui.settings import LOOPBACK, Settings

SAMPLER_ORDER = (
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "HeunPP2", "IPNDM", "IPNDM_V", "DEIS"),
    *("DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM", "DDPM"),
)
USES_ENSD = frozenset({"DPM++ 2S a", "Euler a", "DPM2 a", "DPM fast", "DPM adaptive"})
SECOND_ORDER = frozenset({"DPM++ SDE", "DPM++ 2S a", "Heun", "DPM2", "DPM2 a", "Restart"})
SOLVERS = {"DPM++ 2M SDE Heun": "heun"}
RHO = {"karras": 7.0, "polyexponential": 1.0}
INNER_MODEL = frozenset({"uniform", "sgm_uniform", "simple", "normal", "ddim", "beta", "turbo"})
"""Schedules that upstream computes from its model's own table."""
FAMILY_FOLDERS = ("RealESRGAN",)


def samplers(engine: Engine) -> list[dict[str, Any]]:
    """Every sampler in upstream's order, those that upstream has not after them."""
    order = {name: place for place, name in enumerate(SAMPLER_ORDER)}
    found = sorted(engine.samplers(), key=lambda sampler: order.get(sampler.name, len(order)))
    keys = {schedule.name: schedule.key for schedule in engine.schedules()}
    return [{"name": one.name, "aliases": list(one.aliases), "options": _sampler_options(one, keys)} for one in found]


def _sampler_options(sampler: Sampler, keys: dict[str, str]) -> dict[str, str]:
    """What upstream's table says about a sampler: texts alone."""
    options = {"scheduler": keys[sampler.default_schedule]} if sampler.default_schedule in keys else {}
    flags = {
        "discard_next_to_last_sigma": sampler.discards_penultimate,
        "uses_ensd": sampler.name in USES_ENSD,
        "second_order": sampler.name in SECOND_ORDER,
        "brownian_noise": sampler.brownian,
    }
    options |= {key: "True" for key, holds in flags.items() if holds}
    if sampler.name in SOLVERS:
        options["solver_type"] = SOLVERS[sampler.name]
    return options


def schedulers(engine: Engine) -> list[dict[str, Any]]:
    """ "Automatic" and every schedule."""
    rows = [("automatic", "Automatic", ())] + [(one.key, one.name, one.aliases) for one in engine.schedules()]
    return [
        {
            "name": key,
            "label": label,
            "aliases": list(aliases) or None,
            "default_rho": RHO.get(key, -1.0),
            "need_inner_model": key in INNER_MODEL,
        }
        for key, label, aliases in rows
    ]


def upscalers(engine: Engine) -> list[dict[str, Any]]:
    """The upscalers of pictures."""
    return [
        {
            "name": one.name,
            "model_name": Path(one.path).stem if one.path else None,
            "model_path": one.path or None,
            "model_url": None,
            "scale": float(one.scale),
        }
        for one in engine.upscalers()
        if not one.is_latent
    ]


def latent_upscale_modes(engine: Engine) -> list[dict[str, str]]:
    """The upscalers of latents."""
    return [{"name": one.name} for one in engine.upscalers() if one.is_latent]


def checkpoints(engine: Engine) -> list[dict[str, Any]]:
    """The checkpoints; hashes are null until they were computed."""
    return [
        {
            "title": one.title,
            "model_name": one.entry.name.replace("/", "_"),
            "hash": one.entry.sha256[:10] if one.entry.sha256 else None,
            "sha256": one.entry.sha256,
            "filename": str(one.entry.path),
            "config": None,
        }
        for one in engine.checkpoints()
    ]


def files_of(engine: Engine, kind: str) -> Sequence[ModelEntry]:
    """The files of a kind, none where the library does not know it."""
    return engine.library.entries(kind) if kind in engine.library.folders else ()


def vaes(engine: Engine) -> list[dict[str, str]]:
    """The VAE files."""
    return [{"model_name": one.path.name, "filename": str(one.path)} for one in files_of(engine, "vae")]


def modules(engine: Engine) -> list[dict[str, str]]:
    """VAE and text encoder files: Forge's list."""
    found = [*files_of(engine, "vae"), *files_of(engine, "clip")]
    return [{"model_name": one.path.name, "filename": str(one.path)} for one in found]


def hypernetworks(engine: Engine) -> list[dict[str, str]]:
    """The hypernetwork files."""
    return [{"name": one.name, "path": str(one.path)} for one in files_of(engine, "hypernet")]


def face_restorers(engine: Engine) -> list[dict[str, Any]]:
    """The face restorers, whether their model file is there or not."""
    return [{"name": one.name, "cmd_dir": None} for one in engine.face_restorers()]


def realesrgan_models(engine: Engine) -> list[dict[str, Any]]:
    """The upscaler files of the folder RealESRGAN."""
    paths = {str(one.path) for one in files_of(engine, "upscaler") if set(FAMILY_FOLDERS) & set(one.path.parts)}
    return [
        {"name": one.name, "path": one.path, "scale": int(one.scale)} for one in engine.upscalers() if one.path in paths
    ]


def prompt_styles(engine: Engine) -> list[dict[str, str]]:
    """The rows of styles.csv."""
    styles = engine.styles().by_name.values()
    return [{"name": one.name, "prompt": one.prompt, "negative_prompt": one.negative_prompt} for one in styles]


def _header(entry: ModelEntry, formats: Formats) -> Header | None:
    try:
        return formats.read_header(entry.path)
    except WebUIError:
        return None


def embeddings(engine: Engine) -> dict[str, Any]:
    """The embeddings by name; those whose file cannot be read are skipped."""
    loaded: dict[str, Any] = {}
    skipped: dict[str, Any] = {}
    for entry in files_of(engine, "embedding"):
        header = _header(entry, engine.library.formats)
        shapes = [info.shape for info in header.tensors.values() if info.shape] if header else []
        row = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
        place = loaded if shapes else skipped
        shape = shapes[0] if shapes else (0, 0)
        place[Path(entry.name).name] = {
            **row,
            "shape": shape[-1],
            "vectors": shape[0] if len(shape) > 1 else 1,
        }
    return {"loaded": loaded, "skipped": skipped}


def loras(engine: Engine) -> list[dict[str, Any]]:
    """The LoRA files with what they say about themselves."""
    rows = []
    for entry in files_of(engine, "lora"):
        header = _header(entry, engine.library.formats)
        metadata = dict(header.metadata) if header else {}
        name = Path(entry.name).name
        rows.append(
            {
                "name": name,
                "alias": metadata.get("ss_output_name") or name,
                "path": str(entry.path),
                "metadata": metadata,
            }
        )
    return rows


def extensions(engine: Engine) -> list[dict[str, Any]]:
    """The extensions that are loaded, and those that are switched off."""
    folder = engine.installer.folder
    loaded = {one.name: one.version for one in engine.plugins.extensions}
    off = {one.name: one.manifest.version for one in discover(folder) if one.name in engine.plugins.disabled}
    records = {name: record_of(folder, name) for name in {**off, **loaded}}
    return [
        {
            "name": name,
            "remote": record.source.location if record and record.source.kind is Kind.GIT else "",
            "branch": record.source.ref if record else "",
            "commit_hash": record.commit if record else "",
            "version": ({**off, **loaded})[name][:8],
            "commit_date": 0,
            "enabled": name in loaded,
        }
        for name, record in records.items()
    ]


def cmd_flags(settings: Settings) -> dict[str, Any]:
    """Our settings under upstream's names; the password is not among them."""
    models = settings.models_dir
    return {
        "data_dir": str(models.parent),
        "models_dir": str(models),
        "ckpt_dir": str(models / FOLDERS["checkpoint"][0]),
        "vae_dir": str(models / FOLDERS["vae"][0]),
        "embeddings_dir": str(models.parent / "embeddings"),
        "lora_dir": str(models / FOLDERS["lora"][0]),
        "esrgan_models_path": str(models / "ESRGAN"),
        "realesrgan_models_path": str(models / "RealESRGAN"),
        "styles_file": [str(settings.styles_file)],
        "ui_settings_file": str(settings.state_dir / "config.json"),
        "use_cpu": ["all"] if settings.device == "cpu" else [],
        "no_half": settings.precision == "fp32",
        "no_half_vae": settings.precision == "fp32",
        "precision": "full" if settings.precision == "fp32" else "autocast",
        "listen": settings.host not in LOOPBACK,
        "server_name": settings.host,
        "port": settings.port,
        "api": True,
        "nowebui": False,
        "api_server_stop": False,
        "api_log": False,
        "disable_all_extensions": not settings.load_extensions,
        "enable_insecure_extension_access": settings.insecure_extension_access,
    }


def memory() -> dict[str, Any]:
    """Memory of this computer in bytes.  The graphics memory belongs to the worker, which is not asked."""
    try:
        ram = _ram()
    except (OSError, ValueError, AttributeError) as error:
        return {"ram": {"error": str(error)}, "cuda": {"error": "unavailable"}}
    return {"ram": ram, "cuda": {"error": "unavailable"}}


def _ram() -> dict[str, float]:
    """As upstream computes it: ``used`` is this process's own, ``free`` is the rest of all there is."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = float(os.sysconf("SC_PHYS_PAGES") * page)
    used = float(int(Path("/proc/self/statm").read_text().split()[1]) * page) if sys.platform == "linux" else 0.0
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                used += int(Path(f"/proc/{child}/statm").read_text().split()[1]) * page
    return {"free": total - used, "used": used, "total": total}
