"""Started by test_zero.py, alone or as several ranks: runs recipes one after the other, and checks what only ranks see.

    python tests/learner/zero_script.py jobs.json

`jobs.json` lists jobs as [name, [words]]: the name of a recipe, or of a function here.
"""

from __future__ import annotations

from rollwright.config.launch_env import prepare_environment

prepare_environment()

import atexit
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from rollwright.batching import Segment, TokenBatch
from rollwright.contracts.errors import ConfigError, NonFiniteUpdate
from rollwright.contracts.record import Group, Score
from rollwright.contracts.reward import EnvReward
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.policy_losses import Reinforce
from rollwright.learner.ranks import Ranks, open_accelerator, under_deepspeed
from rollwright.learner.token_critic import CriticSettings, Squared
from rollwright.models.tiny_model import tiny_llama
from rollwright.recipes import grpo, ppo

VOCAB = 32


class EvenIds(EnvReward):
    """What the world pays, and one for each even token id: a policy that has learned nothing earns this and that."""

    name = "even_ids"

    def score(self, group: Group) -> list[Score]:
        return [self._score(t.turns) for t in group.trajectories]

    def _score(self, turns: object) -> Score:
        parts = [dict(turn.paid) | {"even": float(sum(i % 2 == 0 for i in turn.action_ids))} for turn in turns]  # type: ignore[attr-defined]
        return Score(value=sum(sum(part.values()) for part in parts), verifier=self.name, turn_parts=tuple(parts))


def batch(gain: float = 1.0, count: int = 7) -> TokenBatch:
    """Actions of 1 to 7 tokens: ranks get different numbers of micro-batches."""
    turns = [
        Segment(prompt_ids=(1, 2, k), action_ids=tuple((5 + k + i) % VOCAB for i in range(1 + k)), sequence=k)
        for k in range(count)
    ]
    made = TokenBatch.of(turns)
    k = made.sequence_index
    blank = torch.zeros(len(made))
    return made.with_columns(logprobs_sampled=blank - 3.0, advantages=(k - 2.0) * gain, returns=0.1 * k)


REINFORCE = PolicyObjective(loss=Reinforce(), correction="none")


def make_learner(**settings: object) -> Learner:
    torch.manual_seed(0)
    critic = CriticSettings(learning_rate=1e-3, loss=Squared())
    fixed: dict[str, object] = {"learning_rate": 1e-3, "token_budget": 9, "critic": critic}
    return Learner(open_accelerator(), tiny_llama(VOCAB, hidden=32), **(fixed | settings))  # type: ignore[arg-type]


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights()}


def one_step(folder: str) -> None:
    """Losses, norms and weights of three updates, cut into minibatches of which some leave a rank without work."""
    learner, path = make_learner(), Path(folder)
    rows = [learner.update(batch(), REINFORCE, minibatches=m) for m in (1, 7)]
    values, logprobs = learner.values(batch()), learner.logprobs(batch())
    learner.save_pretrained(path / "exported")
    state = weights_of(learner)
    if learner.ranks.first:
        torch.save([rows, values, logprobs, state], path / "steps.pt")


def bad_batches(folder: str) -> None:
    """A loss that is not finite moves nothing and leaves nothing behind; ranks with unlike batches are noticed."""
    learner, fresh = make_learner(), make_learner()
    before = weights_of(learner)
    last = batch().sequence_index == 6
    spoilt = batch().with_columns(advantages=batch().advantages.masked_fill(last, float("nan")))
    try:
        learner.update(spoilt, REINFORCE)
        raise AssertionError("a NaN in the loss went unnoticed")
    except NonFiniteUpdate:
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.weights())
    learner.update(batch(), REINFORCE)
    fresh.update(batch(), REINFORCE)
    after, expected = weights_of(learner), weights_of(fresh)
    assert all(torch.equal(after[name], expected[name]) for name in after), "a dropped gradient was left over"
    ranks = learner.ranks
    if ranks.count > 1:
        try:
            learner.update(batch(gain=1.0 + ranks.index), REINFORCE)
            raise AssertionError("the ranks were given different batches and nobody noticed")
        except ConfigError as error:
            assert "different batches" in str(error)
    if ranks.first:
        (Path(folder) / "bad_batches_passed").touch()


def back_to_checkpoint(run: str, copy: str, drop: str) -> None:
    """A copy of a run as it stood before its last checkpoint."""
    ranks = Ranks(open_accelerator())
    if ranks.first:
        shutil.copytree(run, copy)
        shutil.rmtree(Path(copy) / "checkpoints" / drop)
    ranks.wait()


def die(folder: str) -> None:
    """The second rank is gone without a word while the first waits for it."""
    ranks = Ranks(open_accelerator(timeout_s=600))
    if ranks.index == 1:
        import signal

        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()


JOBS: dict[str, Callable[..., None]] = {
    "grpo": lambda *words: grpo.main(list(words)),
    "ppo": lambda *words: ppo.main(list(words)),
    "one_step": one_step,
    "bad_batches": bad_batches,
    "back_to_checkpoint": back_to_checkpoint,
    "die": die,
}


def note_how_we_part() -> None:
    """Called last: whether this rank still belongs to the processes when Python is about to end."""
    rank = os.environ.get("RANK", "0")
    Path(sys.argv[1]).with_name(f"joined_{rank}").write_text(str(torch.distributed.is_initialized()), encoding="utf-8")


def main() -> None:
    atexit.register(note_how_we_part)
    accelerator = open_accelerator()
    if under_deepspeed():  # without this DeepSpeed leaves parameters as small as these whole on every rank
        zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
        zero["stage3_param_persistence_threshold"] = 0
    for name, words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        JOBS[name](*words)
        accelerator.free_memory()


if __name__ == "__main__":
    main()
