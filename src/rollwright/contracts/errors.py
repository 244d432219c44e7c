"""Every error that Rollwright raises on purpose. Each message says what happened, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

FaultKind = Literal["environment", "engine", "reward", "data", "ours"]
"""Whose fault it was; every line of `faults.jsonl` carries one."""


class RollwrightError(Exception):
    """Base of all errors that a user may want to catch.

    `exit_code` is how a recipe ends: 2 where the message alone says what to change, 1 where something broke under way.
    """

    exit_code: ClassVar[int] = 1


class UserError(RollwrightError):
    """Settings, files or packages must change before anything can be done: the message is all that there is to say."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or without effect for the chosen method."""


class ModelNotFound(ConfigError, FileNotFoundError):
    """The named model is neither a folder with a model in it nor a hub name that can be loaded."""


class UnknownComponent(ConfigError):
    """No environment, reward, engine or curriculum of that name exists."""


class MissingDependency(UserError):
    """An optional package or program is needed and not installed; the message names what installs it."""


class EnvironmentUnavailable(UserError):
    """This machine cannot run the environment (no user namespaces, say); the message names what would allow it."""


class RunFolderError(UserError):
    """The run folder cannot be created, written or resumed from."""


class DataError(UserError):
    """Stored trajectories or demonstrations cannot be used: wrong schema, wrong tokenizer, missing fields."""


class TemplateError(UserError):
    """The model folder has no tokenizer or chat template, or its template rewrites earlier turns."""


class ContextOverflow(UserError):
    """The prompt alone leaves no room for an action within the model's context."""


class EnvironmentFault(RollwrightError):
    """The environment broke (browser died, connection lost): our fault or the machine's, never the policy's.

    The episode ends with `StopReason.ENV_ERROR`; it is retried, counted, and never scored.
    """


class ReplayMismatch(EnvironmentFault):
    """A replayed episode shows something else than it did before: the world does not repeat itself."""


class EngineFault(RollwrightError):
    """Generation failed; the episode ends with `StopReason.ENGINE_ERROR`."""


class RewardFault(RollwrightError):
    """A reward or verifier failed. The trajectories keep no score: a failure is never a score of 0."""


class FaultBudgetExceeded(RollwrightError):
    """More episodes ended in faults than the configuration allows."""


class StalledRollout(RollwrightError):
    """Nothing moved for longer than any deadline allows; the message names who waits for whom."""


class StageTimeout(RollwrightError):
    """A stage of the loop (scoring, sync, checkpoint) passed its deadline."""


class ParityError(RollwrightError):
    """The engine's log-probs differ from the learner's: it samples from other weights than those trained."""


class NonFiniteUpdate(RollwrightError):
    """The loss or the gradient norm is NaN or infinite; the optimiser has not moved."""


# unittest counts an AssertionError as a failed test, and any other exception as a test that broke.
class ContractViolation(RollwrightError, AssertionError):
    """A world or a reward breaks its contract. `violations` lists everything found, each with what to do."""

    def __init__(self, subject: str, violations: Sequence[str]) -> None:
        self.violations = tuple(violations)
        lines = "".join(f"\n- {violation}" for violation in self.violations)
        super().__init__(f"{subject} breaks its contract in {len(self.violations)} ways:{lines}")


_KINDS: tuple[tuple[type[RollwrightError], FaultKind], ...] = (
    (EnvironmentFault, "environment"),
    (EngineFault, "engine"),
    (ParityError, "engine"),
    (RewardFault, "reward"),
    (DataError, "data"),
    (TemplateError, "data"),
)


def fault_kind(error: BaseException) -> FaultKind:
    """Whose fault an error is; what nobody else answers for is ours."""
    # By isinstance, so that a subclass such as ReplayMismatch counts as its parent does.
    return next((kind for known, kind in _KINDS if isinstance(error, known)), "ours")
