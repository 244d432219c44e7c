"""One turn of an episode: what the policy was given, what was written by whom, and what it earned and cost.

Conventions that hold everywhere:
- `action_logprobs[i]` belongs to `action_ids[i]` given `prompt_ids + action_ids[:i]`, natural logarithm, under the
  distribution *actually sampled from* (temperature and mask included).
- A reward lies on the last token of the action that earned it, unless `rewards_at` says where inside it.
- `action_ids` hold what the acting policy chose; a span says where somebody else wrote instead.

What a message holds: text that is whole, and pictures that are named by the hash of their content.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]
# Taken from the type, so that the two cannot part.
ROLES: tuple[Role, ...] = get_args(Role)

PICTURE_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
"""The kinds of pictures that are kept and shown. No SVG: it can hold a script."""
MAX_PICTURE_BYTES = 4_000_000
"""A larger picture is not kept: a store must not grow without bound by what a page draws."""

_HASH = re.compile(r"[0-9a-f]{64}")


def whole(text: str) -> str:
    """The text as UTF-8 and every tokenizer can hold it: the border that text from outside passes.

    JSON and JavaScript cut and spell text by UTF-16 units. Two halves of a sign beside each other become the sign, a
    lone half becomes U+FFFD.
    """
    try:
        # Nearly all text is whole: one encoding finds that out, and the text itself is kept.
        text.encode()
    except UnicodeEncodeError:
        # Encoding writes halves as they are; decoding joins a pair of them and replaces a lone one.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A piece of a message's text, whole."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", whole(self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """A picture's place in a message. The picture itself is the attachment of that hash.

    Raises:
        ValueError: the hash is no SHA-256 in hex, or the media type is none of `PICTURE_SUFFIX`.
    """

    sha256: str
    media_type: str

    def __post_init__(self) -> None:
        if not is_hash(self.sha256) or self.media_type not in PICTURE_SUFFIX:
            raise ValueError(
                f"a picture is named by its SHA-256 and one of {', '.join(PICTURE_SUFFIX)}; got {self.sha256!r}, "
                f"{self.media_type!r}"
            )


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, in plain text that is whole (see `whole`), wherever it comes from.

    `content` is all of its text. `parts` are given where text and pictures take turns; empty means the text alone.

    Raises:
        ValueError: the parts hold another text than `content`.
    """

    role: Role
    content: str
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", whole(self.content))
        # `content` was made whole above, as each part was, so the two can be compared.
        if self.parts and (found := text_of(self.parts)) != self.content:
            raise ValueError(f"the parts of a message read {found[:80]!r}, its content {self.content[:80]!r}")


def text_of(parts: tuple[Part, ...]) -> str:
    """The text of a message in parts: its pieces, a line break between two."""
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A picture or file that belongs to an observation, named by the hash of its content.

    `path` is where the content lies, `content` the bytes themselves until a store has written them: they are no part
    of what makes two attachments equal, and no row holds them.
    """

    sha256: str
    media_type: str
    path: str | None = None
    content: bytes | None = field(default=None, repr=False, compare=False)


def is_hash(text: str) -> bool:
    """Whether the text is a SHA-256 in hex, and so can be part of a file's name."""
    # `match` with `$` would allow a line break at the end, and this becomes a file's name.
    return _HASH.fullmatch(text) is not None


def picture_type(content: bytes) -> str | None:
    """The media type that a picture's first bytes say; None where they are those of no PNG, JPEG or WebP."""
    # By content alone: the type that a page declares may be any.
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def attach_picture(content: bytes, keep: bool | Path | str = True) -> Attachment:
    """A picture as an attachment.

    Args:
        keep: True carries the bytes along, for the store that the turn is written to; a folder keeps them there, under
            their hash: equal pictures are one file.

    Raises:
        ValueError: the bytes are no PNG, JPEG or WebP.
    """
    media_type = picture_type(content)
    if media_type is None:
        raise ValueError(f"these {len(content)} bytes are not a picture: expected PNG, JPEG or WebP")
    digest = hashlib.sha256(content).hexdigest()
    if isinstance(keep, bool):
        return Attachment(sha256=digest, media_type=media_type, content=content)
    path = Path(keep) / f"{digest}{PICTURE_SUFFIX[media_type]}"
    # The name is the hash of the content, so a file of that name holds these bytes.
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Attachment(sha256=digest, media_type=media_type, path=str(path))


Producer = Literal["policy", "guide", "human", "teacher", "dataset", "forced"]
PRODUCERS: tuple[Producer, ...] = get_args(Producer)
"""Who wrote tokens: the trained policy, another model in its place, a person, a scripted teacher, stored data, or
nobody (`forced`: a fixed text)."""
# What a guide or a teacher wrote was chosen as well, and methods of imitation learn from it.
CHOSEN: tuple[Producer, ...] = tuple(producer for producer in PRODUCERS if producer != "forced")
Finish = Literal["stop", "length"]
FINISHES: tuple[Finish, ...] = get_args(Finish)

ACT = "act"
"""The kind of a turn that steps the world. Any other kind is the role of an internal turn, such as `plan`."""
_KIND = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens `start` to `end` (exclusive) of an action: the weights they were sampled from, and who wrote them."""

    start: int
    end: int
    version: int
    producer: Producer = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall-clock seconds of one turn."""

    engine_wait_s: float = 0.0
    generate_s: float = 0.0
    env_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedReward:
    """The part `name` of a turn's rewards, or a piece of it, that token `position` of the action earned.

    Raises:
        ValueError: the value is not finite.
    """

    position: int
    name: str
    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"the reward {self.name!r} at token {self.position} is {self.value}; expected a number")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerMask:
    """What a masked sampler was allowed to write: a learner applies the same mask again (NLPO).

    `mask_id` names a mask that can be made again, `kept_ids` lists per action token the ids that were kept; one of the
    two is given. `raw_logprobs` are the log-probs without the mask, one per action token; `Turn.action_logprobs` are
    those under it.

    Raises:
        ValueError: neither names the mask.
    """

    mask_id: str = ""
    kept_ids: tuple[tuple[int, ...], ...] | None = None
    raw_logprobs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.mask_id and self.kept_ids is None:
            raise ValueError("a sampler's mask is given by its id or by the ids that it kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action of the policy, and what it earned.

    `observed` holds the messages that were new to the policy in this turn; `prompt_ids` everything it was given.
    `attachments` are the pictures of that observation. `kind` is `act` where the world was given the action, else the
    role of an internal turn (`plan`, `check`, `summary`), which steps nothing. `attempt` counts the attempts at one
    task, from 0. `state_key` is the environment's fingerprint of the state *before* the action (GiGPO's anchor, loop
    detection). `text` is all that was said; `acted` what of it the world was given as the action, None where that is
    the same.

    `rewards` are the named parts of what the turn earned; `rewards_at` places parts of them inside the action, and the
    rest lies on its last token. `env_rewards` keep what the environment paid where another reward was laid in
    `rewards`; None where that is the same. `costs` are named too and are never part of a reward.

    `values` maps a critic's name to one value per action token. `policy_weights`, `value_weights` and `kl_weights`
    weigh each action token in the policy's loss, the critic's loss and the KL term; None weighs all by 1.

    Raises:
        ValueError: lengths differ, a number is not finite, a weight is negative, a reward is placed outside the action
            or lies on a token that no loss sees.
    """

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    action_logprobs: tuple[float, ...]
    text: str
    kind: str = ACT
    acted: str | None = None
    observed: tuple[Message, ...] = ()
    spans: tuple[Span, ...] = ()
    finish: Finish = "stop"
    rewards: Mapping[str, float] = field(default_factory=dict)
    rewards_at: tuple[PlacedReward, ...] = ()
    env_rewards: Mapping[str, float] | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    policy_weights: tuple[float, ...] | None = None
    value_weights: tuple[float, ...] | None = None
    kl_weights: tuple[float, ...] | None = None
    sampler_mask: SamplerMask | None = None
    state_key: str = ""
    attempt: int = 0
    attachments: tuple[Attachment, ...] = ()
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        # Everything per token relies on equal lengths.
        if len(self.action_ids) != len(self.action_logprobs):
            raise ValueError(f"{len(self.action_ids)} action ids but {len(self.action_logprobs)} log-probs")
        _require_finite("reward parts", self.rewards)
        # Parts of 0 lose nothing on a forced token.
        if self.rewards and any(self.rewards.values()) and self.action_ids and not self.action_mask[-1]:
            raise ValueError("a reward lies on a forced token, which no loss ever sees: it would vanish")
        if self.kind != ACT and not _KIND.fullmatch(self.kind):
            raise ValueError(f"the kind of a turn is a word such as `act` or `plan`, got {self.kind!r}")
        if self.costs:
            _require_finite("costs", self.costs)
        if self.rewards_at:
            _require_placed(self)
        if self.policy_weights is not None or self.value_weights is not None or self.kl_weights is not None:
            _require_weights(self)
        if self.sampler_mask is not None:
            _require_mask(self.sampler_mask, self.action_ids)

    @property
    def action(self) -> str:
        """What the world was given: all that was said, or what came after the thought."""
        # None, not "": an empty action is one that the world was given, where no action was found.
        return self.text if self.acted is None else self.acted

    @property
    def reward(self) -> float:
        """The sum of the named parts."""
        return math.fsum(self.rewards.values())

    @property
    def token_rewards(self) -> tuple[float, ...]:
        """[len(action_ids)] what each token earned: placed parts where they lie, the rest on the last token."""
        earned = [0.0] * len(self.action_ids)
        for placed in self.rewards_at:
            # Several pieces may lie on one token.
            earned[placed.position] += placed.value
        # A logged action without token ids has no last token; its reward counts by turn alone.
        if earned:
            # The rest is negative where the placed pieces are more than the whole.
            earned[-1] += self.reward - math.fsum(placed.value for placed in self.rewards_at)
        return tuple(earned)

    @property
    def paid(self) -> Mapping[str, float]:
        """What the environment itself paid for this turn, whatever reward was laid on it since."""
        return self.rewards if self.env_rewards is None else self.env_rewards

    @property
    def action_mask(self) -> tuple[bool, ...]:
        """[len(action_ids)] false where a token was forced: nobody chose it, so nothing is learned from it."""
        return self._mask_of(CHOSEN)

    @property
    def policy_mask(self) -> tuple[bool, ...]:
        """[len(action_ids)] true where the trained policy itself sampled the token; no span given means all of it."""
        return self._mask_of(("policy",))

    def _mask_of(self, producers: Sequence[Producer]) -> tuple[bool, ...]:
        if not self.spans:
            return (True,) * len(self.action_ids)
        mask = [False] * len(self.action_ids)
        for span in self.spans:
            if span.producer in producers:
                # Tokens outside of all spans stay False: nobody is known to have chosen them.
                mask[span.start : span.end] = [True] * (span.end - span.start)
        return tuple(mask)

    @property
    def version(self) -> int:
        """The oldest weight version among the policy's tokens; -1 where no version is known."""
        # The oldest token decides how stale a turn is (docs/staleness.md).
        return min((span.version for span in self.spans if span.producer == "policy"), default=-1)


def _require_finite(what: str, parts: Mapping[str, float]) -> None:
    bad = [name for name, value in parts.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{what} must be finite, got { ({name: parts[name] for name in bad}) }")


def _require_placed(turn: Turn) -> None:
    """Placed rewards must be pieces of parts that the turn has, on tokens that it has and that somebody chose."""
    # Made anew at each reading, so once for all parts.
    mask = turn.action_mask
    for placed in turn.rewards_at:
        if placed.name not in turn.rewards:
            named = ", ".join(turn.rewards) or "none"
            raise ValueError(f"a reward {placed.name!r} is placed, but the turn's parts are {named}")
        if not 0 <= placed.position < len(mask):
            raise ValueError(f"the reward {placed.name!r} lies on token {placed.position} of an action of {len(mask)}")
        # A value of 0 may lie anywhere: nothing is lost with it.
        if placed.value and not mask[placed.position]:
            raise ValueError(f"the reward {placed.name!r} lies on token {placed.position}, which was forced")


def _require_weights(turn: Turn) -> None:
    given = {"policy_weights": turn.policy_weights, "value_weights": turn.value_weights, "kl_weights": turn.kl_weights}
    # All three are per action token, forced tokens included.
    for name, weights in given.items():
        if weights is not None and len(weights) != len(turn.action_ids):
            raise ValueError(f"{len(weights)} {name} for {len(turn.action_ids)} action ids")
        if odd := [weight for weight in weights or () if not 0 <= weight < math.inf]:  # NaN too
            raise ValueError(f"{name} must be finite and 0 or more, got {odd[0]}")


def _require_mask(mask: SamplerMask, action_ids: Sequence[int]) -> None:
    """A sampled id is always among those that its mask kept."""
    if mask.raw_logprobs is not None and len(mask.raw_logprobs) != len(action_ids):
        raise ValueError(f"{len(mask.raw_logprobs)} raw log-probs for {len(action_ids)} action ids")
    if mask.kept_ids is None:
        return
    if len(mask.kept_ids) != len(action_ids):
        raise ValueError(f"{len(mask.kept_ids)} kept sets for {len(action_ids)} action ids")
    pairs = zip(mask.kept_ids, action_ids, strict=True)
    # An id outside its mask has probability 0, and its log-ratio would be infinite.
    lost = [place for place, (kept, chosen) in enumerate(pairs) if chosen not in kept]
    if lost:
        raise ValueError(f"token {lost[0]} has the id {action_ids[lost[0]]}, which its mask did not keep")
