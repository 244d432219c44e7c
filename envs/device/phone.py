"""The world `device.phone`: `build` makes it, `phone_world.py` holds it, `handset/` the phone below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rollwright.contracts import ConfigError

from . import phone_world
from .handset.setup import START_MS, Distractors, Setup
from .handset.simulated_phone import STEP_MS, Phone
from .templates.all_templates import chosen_templates

__all__ = ["START_MS", "STEP_MS", "Distractors", "Phone", "Setup", "build"]


def build(
    *,
    templates: str | Sequence[str] = "all",
    splits: Literal["template", "seed"] = "template",
    rendering: Literal["html", "lines", "xml"] = "html",
    distractors: Distractors | Literal["by_difficulty"] = "by_difficulty",
    finish: Literal["declared", "automatic"] = "declared",
    instructions: bool = True,
    teacher_optimal_frac: float = 1.0,
    max_chars: int = 6000,
    screenshots: bool | str | None = None,
    screenshot_scale: float = 0.5,
    backend: Literal["in_process", "adb"] = "in_process",
    serial: str | Sequence[str] | None = None,
    fill: bool = False,
) -> phone_world.PhoneWorld:
    """The world `device.phone`.

    Args:
        templates: "all", a difficulty ("easy", "medium", "hard"), an app's name, or a list of names of templates.
        splits: "template" keeps the templates of the splits apart (and the seeds); "seed" plays all of them in every
            split, with seeds of its own: for learning curves on a few tasks.
        rendering: of the screen; "html" is AutoDroid's, "lines" is shorter, "xml" uiautomator's.
        distractors: pop-ups, permission questions, slow loads: "none", "some", "many", or by the task's difficulty.
        finish: "declared" counts success only once the policy says `done`, as AndroidWorld does; "automatic" ends the
            episode as soon as the state is reached.
        instructions: whether the rules stand in the system prompt; a tiny model is better off without.
        teacher_optimal_frac: share of the teacher's actions that are its solver's; the rest are taps anywhere.
        max_chars: longer screens are cut.
        screenshots: attach a PNG of every screen to the observation: True keeps it in the store of the run, a folder
            keeps it there.
        screenshot_scale: its size, as a part of 1080x2400.
        backend: "in_process" calls the simulated phone; "adb" reaches phones over ADB's transport.
        serial: with "adb", the phones to play on, as `adb devices` shows them; None starts simulated ones, one for
            each environment, on free ports of loopback.
        fill: whether a reset writes the task's data to a real phone. It stays there; see `adb.remote_phones`.

    Raises:
        ConfigError: an option has no such value, or no template is left.
    """
    phone_world.check_choice("splits", splits, ("template", "seed"))
    phone_world.check_choice("rendering", rendering, ("html", "lines", "xml"))
    phone_world.check_choice("distractors", distractors, ("none", "some", "many", "by_difficulty"))
    phone_world.check_choice("finish", finish, ("declared", "automatic"))
    phone_world.check_choice("backend", backend, ("in_process", "adb"))
    if backend != "adb" and (serial is not None or fill):
        raise ConfigError("device.phone: `serial` and `fill` belong to phones over ADB; set `backend: adb`")
    options = phone_world.PhoneOptions(
        rendering=rendering,
        distractors=distractors,
        finish=finish,
        max_chars=max_chars,
        screenshots=screenshots,
        screenshot_scale=screenshot_scale,
    )
    chosen = chosen_templates(templates)
    if not 0.0 <= teacher_optimal_frac <= 1.0:
        raise ConfigError(f"device.phone needs teacher_optimal_frac within [0, 1], got {teacher_optimal_frac}")
    made = phone_world.PhoneWorld(
        templates=chosen,
        splits=splits,
        options=options,
        instructions=phone_world.INSTRUCTIONS if instructions else "",
        optimal_frac=teacher_optimal_frac,
    )
    if backend == "adb":
        from .adb.remote_phones import AdbPhones

        made.play_over(AdbPhones(serial, fill=fill), snapshots="exact" if serial is None else "none")
    return made
