"""A value model of steps in a folder of its own: written by the run that fitted it, read by whoever searches with it.

`body/` is a Hugging Face folder of the transformer without a vocabulary head, `head.pt` the head, `value.json` their
shape. Only tensors are read from `head.pt`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rollwright.contracts import ConfigError
from rollwright.critics.critic_body import CriticBody, other_body
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.step_value import HEAD, StepValue, StepValueFit
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.learner import OptimiserSettings
from rollwright.models import load_whole, resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1


def save_step_value(value: StepValue, fit: StepValueFit, folder: Path, *, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the model into a folder, which is made.

    Args:
        fit: the settings that it was opened with.
        tokenizer: the policy's, whose ids the model was fitted to.
    """
    critic = value.critic
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(critic, ValueLearner):
        module: Any = critic.module
        body, heads, scaling = module.body, module.heads, None
    else:
        body, heads, scaling = critic.body.module, critic.heads, critic.scaling.state_dict()
    body.save_pretrained(folder / "body")
    if critic.body.foreign:
        from transformers import AutoTokenizer

        # A body with words of its own is read with its own tokenizer.
        AutoTokenizer.from_pretrained(resolve_model(fit.model), local_files_only=True).save_pretrained(folder / "body")
    torch.save({"heads": heads.state_dict(), "scaling": scaling}, folder / "head.pt")
    shape = {"width": fit.width, "second_width": fit.second_width, "layer_norm": fit.layer_norm}
    about = {"steps": critic.step, "foreign": critic.body.foreign, "vocabulary": vocabulary_mark(tokenizer)}
    document = {"format": FORMAT, **about, **shape}
    # Last: a folder without it is one that was not finished.
    (folder / "value.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def vocabulary_mark(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what each id means: ids of another tokenizer would be read as other words, or as none at all."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def load_step_value(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> StepValue:
    """The model of a folder, to be read and not trained further.

    Args:
        tokenizer: the policy's, whose ids are read.

    Raises:
        ConfigError: there is no value model, one that was never fitted or cannot be read, or one of another tokenizer.
    """
    from accelerate import Accelerator

    place = Path(folder).expanduser()
    try:
        document = json.loads((place / "value.json").read_text(encoding="utf-8"))
        widths = {name: document[name] for name in ("width", "second_width", "layer_norm")}
        if document["vocabulary"] != vocabulary_mark(tokenizer):
            raise ConfigError(
                f"the value model in {place} was fitted to another tokenizer than the policy's, and would read other "
                "words: use the policy of its own run, or one that was trained from it"
            )
        state = torch.load(place / "head.pt", map_location="cpu", weights_only=True)
        body = other_body(place / "body", tokenizer) if document["foreign"] else _own_body(place / "body")
        critic = _reader(Accelerator(), body, widths, state, steps=int(document["steps"]))
    except ConfigError:
        raise
    except Exception as error:  # broken folders fail in many ways, none of them of our making
        raise ConfigError(
            f"{place} holds no value model that can be read ({error}): name the folder `value` of a run of "
            "recipes/reasoner.py that has come to its end"
        ) from error
    value = StepValue(critic, updates=1, batch_size=1)
    if not value.fitted:
        raise ConfigError(f"the value model in {place} was never fitted: its run did not get through phase 1")
    return value


def _own_body(folder: Path) -> CriticBody:
    from transformers import AutoModel

    from rollwright.batching import prefix_tree  # noqa: F401  makes "sdpa_tree" known to transformers

    module = load_whole(AutoModel, folder, attn_implementation="sdpa_tree", dtype=torch.float32)
    return CriticBody(module)


def _reader(accelerator: Any, body: CriticBody, widths: Any, state: Any, *, steps: int) -> FrozenValueLearner:
    settings = TurnCriticSettings(
        heads={HEAD: 1}, width=widths["width"], layer_norm=widths["layer_norm"], deeper=(widths["second_width"],)
    )
    # The rate is never used: nothing is trained here.
    reader = FrozenValueLearner(accelerator, body, settings, OptimiserSettings(learning_rate=1e-9))
    reader.heads.load_state_dict(state["heads"])
    if state["scaling"] is not None:
        reader.scaling.load_state_dict(state["scaling"])
    reader.step = steps
    return reader
