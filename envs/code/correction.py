"""Two attempts at one function with nothing learned in between: the second must correct the first (SCoRe's setting).

After the first attempt comes a fixed instruction that is the same for right and wrong answers. Both attempts are always
played; each turn carries its index (`Turn.attempt`) and what it earned by itself (part `tests`, 1 or 0). The episode's
success is that of the second attempt. The bonus, the stages and the KL per turn are the method's, not the world's.

Source: arXiv:2409.12917 (SCoRe), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from rollwright.contracts import AuditFacts, Task
from rollwright.envs.code.problems.specifications import FAMILIES
from rollwright.envs.code.submission import Judgement, SubmissionEnvironment
from rollwright.envs.code.synthesis import SynthesisWorld, Wording, make_world

AGAIN = "There may be a mistake in your answer, or there may be none. Check it, then write the whole function again."
AGAIN_COMPACT = "again"


class CorrectionWorld(SynthesisWorld):
    """The tasks of code.synthesis, two attempts each. Build it with `build`."""

    name = "code.correction"

    def make(self) -> SubmissionEnvironment:
        """A fresh environment, which shows all attempts so far."""
        return SubmissionEnvironment(self, all_attempts=True)

    def audit_facts(self, task: Task) -> AuditFacts:
        """The second attempt alone decides, whatever the first one was."""
        return AuditFacts(last_decides=True)

    def next_attempt(self, judgement: Judgement) -> str:
        """The same words whatever the first attempt was worth."""
        return AGAIN_COMPACT if self.wording == "compact" else AGAIN

    def texts(self) -> list[str]:
        """What is said here, for a tokenizer made to measure."""
        return [*super().texts(), AGAIN, AGAIN_COMPACT]


def build(
    *,
    families: Sequence[str] = tuple(FAMILIES),
    difficulty: int = 2,
    tasks_per_family: int = 100,
    held_out_per_family: int = 10,
    wording: Wording = "full",
    teacher_right_frac: float = 0.5,
    unsafe: bool = False,
) -> CorrectionWorld:
    """Two-attempt self-correction.

    Args:
        families, difficulty, tasks_per_family, held_out_per_family, wording, unsafe: as in code.synthesis.
        teacher_right_frac: share of right first attempts of the teacher; its second attempt is always right.

    Raises:
        ConfigError: an option has no such value.
    """
    return make_world(
        CorrectionWorld,
        families=families,
        difficulty=difficulty,
        tasks_per_family=tasks_per_family,
        held_out_per_family=held_out_per_family,
        wording=wording,
        attempts=2,
        feedback="none",
        reward="all",
        teacher_right_frac=teacher_right_frac,
        unsafe=unsafe,
    )
