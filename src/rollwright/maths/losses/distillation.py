"""Divergences between a student and a teacher at single tokens, and what becomes of them in a loss or an advantage.

pi is the student, nu the teacher, x = log pi(a) - log nu(a) for the token a that the student sampled. All logs are
natural. Teachers carry no gradient.

Sources: arXiv:2306.13649 (GKD), arXiv:2604.24005 (TCOD), and the forms of verl, TRL and tinker-cookbook.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rollwright.contracts import require_choice
from rollwright.maths.sequences import check_segments, require_same_shape

Rest = Literal["tail", "renormalise", "raw"]
"""What becomes of the probability outside of a top-k support: a bucket of its own, divided away, or left out."""
VOCABULARY_CHUNK = 8192
"""Entries of the vocabulary whose float32 probabilities are held at a time."""


def distillation_advantages(
    logprobs: Tensor, logprobs_teacher: Tensor, *, coef: float = 1.0, clip: float | None = 5.0
) -> Tensor:
    """clip(-coef x) per sampled token: in expectation the policy gradient of the reverse KL here. [N] -> [N].

    Args:
        logprobs: [N] of the student that sampled, without the privileged text.
        logprobs_teacher: [N], NaN where the teacher gave no score.
        clip: the advantage lies within +-clip; None leaves it as it is.

    Returns:
        NaN where the teacher's score is unknown: such a token must be masked. 0 would praise or blame nobody, but a
        score of 0.0 in its place would say that the teacher is certain.
    """
    require_same_shape(logprobs=logprobs, logprobs_teacher=logprobs_teacher)
    found = -coef * (logprobs - logprobs_teacher).detach()
    return found if clip is None else found.clamp(-clip, clip)


def discounted_ahead(values: Tensor, sequence_index: Tensor, *, num_sequences: int, gamma: float) -> Tensor:
    """sum over j >= i of gamma^(j - i) v_j inside each sequence. [N] -> [N]; gamma = 0 gives the values themselves.

    With gamma = 1 the log-ratios ahead of a token make the gradient that of the whole sequence's KL: unbiased for it,
    far noisier, and it prefers episodes that end early. A NaN counts as 0 for the tokens before it and stays itself.
    """
    check_segments(values, sequence_index, num_sequences)
    found, ahead = values.clone(), [0.0] * num_sequences
    if gamma == 0:
        return found
    for place in range(len(values) - 1, -1, -1):
        owner, value = int(sequence_index[place]), float(values[place])
        known = value == value
        ahead[owner] = (value if known else 0.0) + gamma * ahead[owner]
        if known:
            found[place] = ahead[owner]
    return found


def top_k_reverse_kl(logprobs: Tensor, logprobs_teacher: Tensor, *, rest: Rest = "tail") -> Tensor:
    """sum over a support S of pi (log pi - log nu). [..., k] of both at the same k tokens -> [...].

    "tail" adds one bucket with all the probability outside of S, "renormalise" divides both by their mass in S. "raw"
    does neither: it falls when the student moves its mass out of S, and its gradient at pi = nu is not 0.

    Raises:
        ValueError: an unknown word, or tensors of different shapes.
    """
    require_choice("rest", rest, Rest, what="treatment of the rest")
    require_same_shape(logprobs=logprobs, logprobs_teacher=logprobs_teacher)
    student, teacher = logprobs, logprobs_teacher.detach()
    if rest == "renormalise":
        student = student - student.logsumexp(dim=-1, keepdim=True)
        teacher = teacher - teacher.logsumexp(dim=-1, keepdim=True)
    inside = (student.exp() * (student - teacher)).sum(dim=-1)
    if rest != "tail":
        return inside
    # Rounding may leave a mass of a little more than 1, and the whole vocabulary leaves no tail: both floors are equal,
    # so that an empty tail costs nothing.
    least = 10 * torch.finfo(student.dtype).eps
    outside = (1 - student.exp().sum(dim=-1)).clamp(min=least)
    teacher_outside = (1 - teacher.exp().sum(dim=-1)).clamp(min=least)
    return inside + outside * (outside.log() - teacher_outside.log())


def jensen_shannon(logprobs: Tensor, logprobs_teacher: Tensor, *, beta: float) -> Tensor:
    """beta KL(nu || M) + (1 - beta) KL(pi || M) with M = beta nu + (1 - beta) pi. [..., V] -> [...].

    Divided by beta it tends to the forward KL(nu || pi) as beta goes to 0; divided by 1 - beta, to the reverse KL as
    beta goes to 1. The value itself tends to 0 at both ends.

    Raises:
        ValueError: beta outside of (0, 1), where it would be 0 for every student.

    Sources: arXiv:2306.13649, eq. 1.
    """
    require_same_shape(logprobs=logprobs, logprobs_teacher=logprobs_teacher)
    if not 0 < beta < 1:
        raise ValueError(
            f"beta is {beta}; expected a number between 0 and 1, both excluded: use the reverse KL itself instead of 1"
        )
    student, teacher = logprobs, logprobs_teacher.detach()
    share = torch.tensor(beta, dtype=student.dtype, device=student.device)
    mixed = torch.logaddexp(teacher + share.log(), student + (1 - share).log())
    forward = torch.where(teacher == -torch.inf, 0.0, teacher.exp() * (teacher - mixed)).sum(dim=-1)
    # A token that the student never says adds nothing; -inf minus -inf would be NaN.
    own = torch.where(student == -torch.inf, 0.0, student.exp() * (student - mixed)).sum(dim=-1)
    return beta * forward + (1 - beta) * own


def full_reverse_kl(logits: Tensor, logits_teacher: Tensor, *, chunk: int = VOCABULARY_CHUNK) -> Tensor:
    """KL(pi || nu) over the whole vocabulary, from logits. [N, V] of both -> [N], gradient in `logits` alone.

    Both passes go over the vocabulary `chunk` entries at a time, so that no [N, V] probabilities are kept: the gradient
    with respect to logit v is pi_v (log pi_v - log nu_v - KL). A logit of -inf in both is a token nobody says.

    Raises:
        ValueError: shapes differ, or the chunk is not positive.
    """
    require_same_shape(logits=logits, logits_teacher=logits_teacher)
    if logits.dim() != 2 or chunk < 1:
        raise ValueError(f"expected logits [N, V] and a chunk of 1 or more, got {tuple(logits.shape)} and {chunk}")
    found: Tensor = _ReverseKl.apply(logits, logits_teacher.detach(), chunk)
    return found


class _ReverseKl(torch.autograd.Function):
    """The KL in chunks of the vocabulary; keeps the logits, two normalisers and the KL of each row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor, chunk: int) -> Tensor:  # type: ignore[override]
        norms = logits.logsumexp(dim=-1, keepdim=True), teacher.logsumexp(dim=-1, keepdim=True)
        kl = logits.new_zeros(len(logits))
        for start in range(0, logits.shape[1], chunk):
            probs, ratio = _chunk_of(logits, teacher, norms, slice(start, start + chunk))
            kl += (probs * ratio).sum(dim=-1)
        ctx.save_for_backward(logits, teacher, *norms, kl)
        ctx.chunk = chunk
        return kl

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        logits, teacher, student_norm, teacher_norm, kl = ctx.saved_tensors
        found = torch.empty_like(logits)
        for start in range(0, logits.shape[1], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            probs, ratio = _chunk_of(logits, teacher, (student_norm, teacher_norm), part)
            found[:, part] = grad[:, None] * probs * (ratio - kl[:, None])
        return found, None, None


def _chunk_of(logits: Tensor, teacher: Tensor, norms: tuple[Tensor, Tensor], part: slice) -> tuple[Tensor, Tensor]:
    """pi and log pi - log nu of a part of the vocabulary; 0 and 0 where the student never says the token."""
    student = logits[:, part] - norms[0]
    ratio = student - (teacher[:, part] - norms[1])
    return student.exp(), torch.where(student == -torch.inf, torch.zeros_like(ratio), ratio)
