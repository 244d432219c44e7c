"""Sums, means and backward scans over the sequences of a flat, packed batch.

All the mathematics of the learner runs on flat tensors: one entry per action token ([N]), and beside it an integer
`sequence_index` [N] that names the sequence (turn, trajectory, group) the entry belongs to. Observations and padding
are simply absent, so no formula can see them. Within one sequence the entries stand in the order in which they were
sampled; different sequences may be interleaved. The padded layout ([B, T] and a mask) is converted here, at the border.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_segments(values: Tensor, sequence_index: Tensor, num_sequences: int) -> None:
    """Raise unless `values` and `sequence_index` are flat, of one length, and every index lies in [0, num_sequences).

    Raises:
        ValueError: a shape or an index is wrong.
        TypeError: the index is not an integer tensor.
    """
    if values.dim() != 1 or sequence_index.shape != values.shape:
        raise ValueError(
            f"expected flat tensors of one length, got {tuple(values.shape)} with an index of "
            f"{tuple(sequence_index.shape)}: flatten padded tensors first, with `tensor[mask]`"
        )
    # Boolean tensors index as masks, not by number, so they are no sequence numbers.
    if sequence_index.is_floating_point() or sequence_index.dtype == torch.bool:
        raise TypeError(f"the sequence index must hold integers, got {sequence_index.dtype}")
    # `min` and `max` of an empty tensor raise, so the number of entries is asked first.
    if sequence_index.numel() and not 0 <= int(sequence_index.min()) <= int(sequence_index.max()) < num_sequences:
        raise ValueError(
            f"sequence indices span {int(sequence_index.min())}..{int(sequence_index.max())}, "
            f"but there are {num_sequences} sequences (0..{num_sequences - 1})"
        )


def require_length(name: str, values: Tensor, length: int, *, per: str) -> None:
    """Raise unless `values` is flat with one number `per` so many things.

    Raises:
        ValueError: another shape.
    """
    if values.shape != (length,):
        raise ValueError(f"`{name}` needs one number per {per}, so the shape ({length},); got {tuple(values.shape)}")


def require_same_shape(**tensors: Tensor) -> None:
    """Raise unless the named tensors share one shape: [N] against [N, 1] would be spread to [N, N] in silence.

    Raises:
        ValueError: they do not; the message names each with its shape.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"`{name}` {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"these need one shape, an entry for an entry, got {shapes}")


def require_finite_entries(**tensors: Tensor) -> None:
    """Raise if one of the named tensors holds NaN or infinity, which would spread over the whole batch.

    Raises:
        ValueError: it does; the message names the tensor and the first place.
    """
    for name, tensor in tensors.items():
        odd = ~tensor.isfinite()
        if odd.any():
            place = odd.nonzero()[0].tolist()
            raise ValueError(
                f"`{name}` must be finite, but holds {float(tensor[tuple(place)])} at {place}: look for its source "
                "(a reward, a verifier, a critic) before learning from this batch"
            )


def segment_sum(values: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Sum of each sequence's entries. [N] -> [S]; an empty sequence sums to 0. Differentiable in `values`."""
    check_segments(values, sequence_index, num_sequences)
    return values.new_zeros(num_sequences).index_add(0, sequence_index, values)


def segment_count(mask: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Number of entries with a true mask in each sequence. [N] bool -> [S] int64."""
    return segment_sum(mask.long(), sequence_index, num_sequences)


def segment_mean(values: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Mean of each sequence's entries. [N] -> [S]; an empty sequence has mean 0. Differentiable in `values`."""
    totals = segment_sum(values, sequence_index, num_sequences)
    counts = segment_count(torch.ones_like(sequence_index), sequence_index, num_sequences)
    return totals / counts.clamp(min=1)


def segment_std(values: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Unbiased standard deviation of each sequence's entries. [N] -> [S]; 0 where a sequence has fewer than two."""
    # Centred before squaring: a sum of squares minus n mean^2 cancels where scores are large and alike.
    centred = values - segment_mean(values, sequence_index, num_sequences)[sequence_index]
    squares = segment_sum(centred.square(), sequence_index, num_sequences)
    counts = segment_count(torch.ones_like(sequence_index), sequence_index, num_sequences)
    # The clamp covers sequences of one entry, whose centred square is 0.
    return (squares / (counts - 1).clamp(min=1)).sqrt()


def positions_in_segment(sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Rank of every entry within its own sequence, counted from 0 in the order of appearance. [N] -> [N] int64."""
    # Only a stable sort keeps the order of sampling inside each sequence.
    order = torch.argsort(sequence_index, stable=True)
    # Without `minlength` the last sequences, where they are empty, would be missing.
    counts = torch.bincount(sequence_index, minlength=num_sequences)
    starts = counts.cumsum(0) - counts
    # In sorted order the rank is the place minus the place where the sequence begins.
    ranks = torch.arange(sequence_index.numel(), device=sequence_index.device) - starts[sequence_index[order]]
    return torch.empty_like(ranks).index_copy(0, order, ranks)


def is_segment_start(sequence_index: Tensor, num_sequences: int) -> Tensor:
    """True at the first entry of every sequence. [N] -> [N] bool."""
    return positions_in_segment(sequence_index, num_sequences) == 0


def is_segment_end(sequence_index: Tensor, num_sequences: int) -> Tensor:
    """True at the last entry of every sequence. [N] -> [N] bool."""
    counts = torch.bincount(sequence_index, minlength=num_sequences)
    return positions_in_segment(sequence_index, num_sequences) == counts[sequence_index] - 1


def next_in_segment(values: Tensor, sequence_index: Tensor, last_values: Tensor) -> Tensor:
    """The value of the next entry of the same sequence; after the last one, that sequence's `last_values`.

    Args:
        values: [N] float.
        sequence_index: [N] int.
        last_values: [S] float, what follows each sequence (0 where it ended, a bootstrap value where it was cut).
    """
    num_sequences = last_values.numel()
    check_segments(values, sequence_index, num_sequences)
    order = torch.argsort(sequence_index, stable=True)
    # Every entry gets what follows its sequence; the entries that have a next one are overwritten below.
    following = last_values.to(values.dtype)[sequence_index].clone()
    same = sequence_index[order][:-1] == sequence_index[order][1:]
    following[order[:-1][same]] = values[order[1:][same]]
    return following


def reverse_discounted_sum(values: Tensor, sequence_index: Tensor, num_sequences: int, decay: float) -> Tensor:
    """y_t = x_t + decay * y_next, backwards within every sequence. [N] -> [N].

    Returns-to-go are this with decay gamma, advantages this over temporal differences with decay gamma * lambda. Works
    column by column on a dense [S, L] copy, so it costs L steps for the longest sequence, however many there are.
    """
    check_segments(values, sequence_index, num_sequences)
    # `max` of an empty tensor raises.
    if values.numel() == 0:
        return values.clone()
    columns = positions_in_segment(sequence_index, num_sequences)
    dense = values.new_zeros(num_sequences, int(columns.max()) + 1)
    dense[sequence_index, columns] = values
    # Rows are left-aligned: the empty tail of a short row holds zeros and therefore hands zero to its last entry.
    for column in range(dense.shape[1] - 2, -1, -1):
        dense[:, column] += decay * dense[:, column + 1]
    return dense[sequence_index, columns]
