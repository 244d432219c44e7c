"""The world `device.phone`: task templates played on a phone, in text. `phone.build` makes it."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal
from weakref import WeakKeyDictionary

from rollwright.contracts import (
    SPLITS,
    Attachment,
    AuditFacts,
    ConfigError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    attach_picture,
    episode_seed,
    split_of_seed,
    state_key,
)

from .apps import installed
from .backend import Backend, InProcess, Phones
from .handset.contents import base_data
from .handset.setup import Distractors
from .phone_actions import GRAMMAR, ActionError, carry_out, parse_action
from .random_taps import phone_action
from .screen.tree import Element, elements, to_html, to_lines, to_xml
from .templates.template import Difficulty, GiveUp, Hands, Params, Template

Rendering = Literal["html", "lines", "xml"]
Finish = Literal["declared", "automatic"]
Splits = Literal["template", "seed"]
BY_DIFFICULTY: dict[Difficulty, Distractors] = {"easy": "none", "medium": "some", "hard": "many"}
INSTRUCTIONS = (
    "You use a phone to reach the goal. Things on the screen have a number. Reply with one action: "
    f"{GRAMMAR}. Answer questions with answer. End with done."
)
_SNAPSHOT = b"rollwright-device-1\n"
_WORDS = re.compile(r" ?\w+| ?[^\w\s]|\s")
MAX_WORDS = 700
"""Of `texts`: with 256 bytes beside them they fit a tiny model's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class PhoneOptions:
    """How episodes are played; `phone.build` says what each option means."""

    rendering: Rendering = "html"
    distractors: Distractors | Literal["by_difficulty"] = "by_difficulty"
    finish: Finish = "declared"
    max_chars: int = 6000
    screenshots: bool | str | None = None
    screenshot_scale: float = 0.5


class PhoneEnv:
    """One episode at a time on one backend. Made by `PhoneWorld.make`."""

    def __init__(self, templates: dict[str, Template], options: PhoneOptions, backend: Backend) -> None:
        self._templates = templates
        self._options = options
        self.backend = backend
        self.elements: tuple[Element, ...] = ()
        self.params: Params = {}
        self.answer = ""
        self.turns = 0
        self.episode = 0
        self._task_id, self._goal, self._text, self._error, self._seed = "", "", "", "", 0
        self._over = True

    @property
    def seed(self) -> int:
        """The seed of the running episode."""
        return self._seed

    @property
    def goal(self) -> str:
        """The instruction of the running episode."""
        return self._goal

    @property
    def template(self) -> Template:
        """The template of the running episode."""
        return self._templates[self._task_id]

    def reset(self, task: Task, seed: int) -> Observation:
        """Start `task` from `seed`.

        Raises:
            ValueError: the seed belongs to another split than the task, or no template has the task's id.
            EnvironmentFault: from a backend that lost its phone.
        """
        if split_of_seed(seed) != task.split:
            raise ValueError(
                f"seed {seed} is a {split_of_seed(seed)} seed but task {task.id!r} is of split {task.split!r}; "
                "draw seeds with episode_seed(task.split, ...)"
            )
        if task.id not in self._templates:
            raise ValueError(f"no template is called {task.id!r} in this world; `tasks(split)` lists them")
        self._task_id, self._seed = task.id, seed
        rng = random.Random(f"{task.id}/{seed}")
        data = base_data(rng)
        self.params = self.template.prepare(rng, data)
        level = self._options.distractors
        chosen = BY_DIFFICULTY[self.template.difficulty] if level == "by_difficulty" else level
        self.backend.reset(data.setup(distractors=chosen, seed=seed))
        self._goal = self.template.say_goal(self.params)
        self.answer, self.turns, self._error, self._over = "", 0, "", False
        self.episode += 1
        self._look()
        return Observation(text=self._text, goal=self._goal, attachments=self._picture())

    def step(self, action: str) -> StepResult:
        """Carry out one action; what cannot be carried out becomes an error line, and the turn is spent.

        Raises:
            RuntimeError: there is no running episode.
            EnvironmentFault: from a backend that lost its phone.
        """
        if self._over:
            raise RuntimeError("step() needs a running episode; call reset() first")
        self.turns += 1
        self._error = ""
        try:
            read = parse_action(action)
            if read.action_type == "answer":
                self.answer = read.text
            elif read.action_type == "status":
                return self._declared(infeasible=read.goal_status == "infeasible")
            else:
                carry_out(read, self.backend, self.elements)
        except ActionError as slip:
            self._error = str(slip)
        self._look()
        if self._options.finish == "automatic" and self.reached():
            return self._end(success=True)
        if self.turns >= self.template.budget:
            return self._end(success=False, truncated=True)
        notes = {"error": self._error} if self._error else {}
        return StepResult(observation=Observation(text=self._text, attachments=self._picture()), notes=notes)

    def reached(self) -> bool:
        """Whether the goal's state holds now, declared or not."""
        return self.template.feasible and bool(self.template.success(self.backend, self.params, self.answer))

    def fingerprint(self) -> str:
        """A key of task, goal, screen and error line: all that the policy sees."""
        return state_key(self._task_id, self._goal, self._text, str(self._over))

    def snapshot(self) -> bytes:
        """The episode and the phone, exactly."""
        head = [self._task_id, self._seed, self.params, self.answer, self.turns, self._error, self._over]
        return _SNAPSHOT + json.dumps(head).encode() + b"\n" + self.backend.snapshot()

    def restore(self, state: bytes) -> None:
        """Take up the episode of a snapshot, also one that another environment of this world took.

        Raises:
            ValueError: these are not the bytes of such a snapshot.
        """
        if not state.startswith(_SNAPSHOT):
            raise ValueError("these bytes are no snapshot of this world; use what `snapshot()` gave")
        line, _, phone = state[len(_SNAPSHOT) :].partition(b"\n")
        head = json.loads(line)
        self._task_id, self._seed, self.params, self.answer, self.turns, self._error, self._over = head
        self._goal = self.template.say_goal(self.params)
        self.episode += 1
        self.backend.restore(phone)
        self._look()

    def screenshot(self) -> bytes:
        """The display as it looks now, PNG."""
        return self.backend.screenshot(self._options.screenshot_scale)

    def close(self) -> None:
        """May be called twice."""
        self._over = True
        self.backend.close()

    def _declared(self, *, infeasible: bool) -> StepResult:
        """The policy says that it has finished, or that it cannot be done: only then the state counts."""
        self._look()
        return self._end(success=not self.template.feasible if infeasible else self.reached())

    def _end(self, *, success: bool, truncated: bool = False) -> StepResult:
        self._over = True
        return StepResult(
            observation=Observation(text=self._text, attachments=self._picture()),
            reward=float(success),
            terminated=not truncated,
            truncated=truncated,
            success=success,
        )

    def _look(self) -> None:
        tree = self.backend.tree()
        self.elements = elements(tree)
        render = {"html": to_html, "lines": to_lines}.get(self._options.rendering)
        screen = render(self.elements) if render else to_xml(tree)
        if len(screen) > self._options.max_chars:
            screen = screen[: self._options.max_chars] + " ..."
        self._text = f"Error: {self._error}\n{screen}" if self._error else screen

    def _picture(self) -> tuple[Attachment, ...]:
        keep = self._options.screenshots
        return (attach_picture(self.screenshot(), keep),) if keep else ()


class PhoneTeacher:
    """Plays a template's own solver; one teacher may play many episodes at a time.

    With `optimal_frac` below 1 the rest of its actions are taps anywhere, after which the solver starts anew from
    wherever it is: a careless player, to be imitated and then surpassed. Its draws are fixed by seed and turn.
    """

    def __init__(self, optimal_frac: float = 1.0) -> None:
        self._optimal_frac = optimal_frac
        self._plays: WeakKeyDictionary[PhoneEnv, tuple[tuple[int, int], Hands, Iterator[str]]] = WeakKeyDictionary()

    def act(self, env: Environment, observation: Observation) -> str:
        """The next action of the solver; `done` when it has come to its end or to nothing."""
        if not isinstance(env, PhoneEnv):
            raise TypeError(f"this teacher uses phones, not {type(env).__name__}")
        rng = random.Random(f"{env.seed}/{env.turns}")
        if rng.random() >= self._optimal_frac:
            return f"tap {rng.randrange(len(env.elements))}"
        due, hands, play = self._plays.get(env, ((-1, -1), Hands(), iter(())))
        if due != (env.episode, env.turns):  # another episode, or something else was done in between
            hands = Hands()
            play = env.template.solve(hands, env.params)
        self._plays[env] = ((env.episode, env.turns + 1), hands, play)
        hands.look(env.elements, env.backend.activity()[0])
        try:
            return next(play)
        except (StopIteration, GiveUp):
            return "done" if env.template.feasible else "infeasible"


class PhoneWorld:
    """The templates by split, and phones to play them on. Made by `phone.build`."""

    name = "device.phone"
    execution: Execution
    snapshots: SnapshotKind = "exact"

    def __init__(
        self,
        *,
        templates: Sequence[Template],
        splits: Splits,
        options: PhoneOptions,
        make_backend: Callable[[], Backend] = InProcess,
        execution: Execution = "inline",
        instructions: str = INSTRUCTIONS,
        optimal_frac: float = 1.0,
    ) -> None:
        self._optimal_frac = optimal_frac
        self.execution = execution
        self.instructions = instructions
        self.options = options
        self._templates = {template.name: template for template in templates}
        self._make_backend = make_backend
        self._close_phones: Callable[[], None] | None = None
        self._tasks = {split: tuple(self._listed(split, splits)) for split in SPLITS}
        self.max_turns = max(template.budget for template in templates)

    def play_over(self, phones: Phones, *, snapshots: SnapshotKind) -> None:
        """Take the backends of environments made from now on from `phones`, and close it with this world."""
        self._make_backend, self._close_phones = phones.take, phones.close
        # Each step waits for another process or thread, so environments may well wait at the same time.
        self.execution, self.snapshots = "thread", snapshots

    def tasks(self, split: Split) -> Sequence[Task]:
        """One task per template of that split; its instances differ by the seed."""
        return self._tasks[split]

    def make(self) -> PhoneEnv:
        """A fresh environment with a phone of its own."""
        return PhoneEnv(self._templates, self.options, self._make_backend())

    def teacher(self, task: Task) -> PhoneTeacher:
        """A fresh solver; every template has one."""
        return PhoneTeacher(self._optimal_frac)

    def audit_facts(self, task: Task) -> AuditFacts:
        """`done` ends an episode. Of a task that cannot be done, `infeasible` is the solution, whoever says it."""
        told = "the task cannot be done, and to say so is its solution"
        lucky = () if self._templates[task.id].feasible else ("constant", "repeat", "loop", "wrong step", "random")
        return AuditFacts(
            stop_action="done",
            template=task.id,
            constants=("infeasible",),
            harmless=("wait",),
            solved_by=dict.fromkeys(lucky, told),
        )

    def truly_solved(self, env: Environment) -> bool | None:
        """For the audit: True where the goal's state holds on the phone, read anew. None says nothing.

        An interruption may come up after the last step that matters; a solution that leaves it is whole.
        """
        if not isinstance(env, PhoneEnv) or env.turns >= env.template.budget:
            return None
        return True if env.reached() else None

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A tap, a text, a gesture, a key, an app, or `done`."""
        if not isinstance(env, PhoneEnv):
            raise TypeError(f"this world plays phones, not {type(env).__name__}")
        return phone_action(env.goal, env.elements, draws)

    def texts(self) -> Sequence[str]:
        """The commonest words a tiny model reads and writes in these tasks, gathered by playing them.

        Names and numbers have no end, so rare words are left to the tokenizer's bytes.
        """
        return (self.instructions, *_gathered(self))

    def close(self) -> None:
        """Switch off the phones that are not in this process. May be called twice."""
        if self._close_phones is not None:
            self._close_phones()

    def _listed(self, split: Split, splits: Splits) -> Iterator[Task]:
        for template in self._templates.values():
            if splits == "seed" or template.split == split:
                params = {"difficulty": template.difficulty, "max_turns": template.budget}
                yield Task(id=template.name, split=split, params=params)


@cache
def _gathered(world: PhoneWorld) -> tuple[str, ...]:
    """The actions' words, then those of screens and actions in the teachers' and in stray episodes, by frequency."""
    env, seen = world.make(), Counter[str]()
    for task in world.tasks("train"):
        for number in range(8):
            for text in _played(world, env, task, episode_seed("train", "texts", number)):
                seen.update(_WORDS.findall(text))
    env.close()
    words = dict.fromkeys(word for text in _action_words() for word in _WORDS.findall(text))
    words |= dict.fromkeys(word for word, _ in seen.most_common())
    return tuple(islice(words, MAX_WORDS))


def _played(world: PhoneWorld, env: PhoneEnv, task: Task, seed: int) -> Iterator[str]:
    teacher, rng = world.teacher(task), random.Random(seed)
    for strays in (0.0, 0.5):
        observation = env.reset(task, seed)
        yield observation.goal
        yield observation.text
        for _ in range(env.template.budget):
            action = teacher.act(env, observation)
            if rng.random() < strays:
                action = f"tap {rng.randrange(len(env.elements))}"
            result = env.step(action)
            assert isinstance(result.observation, Observation)
            observation = result.observation
            yield from (action, observation.text)
            if result.terminated or result.truncated:
                break


def _action_words() -> list[str]:
    numbers = " ".join(str(i) for i in range(40))
    verbs = "tap hold double type scroll swipe open back home enter wait answer done infeasible up down left right"
    apps = "".join(f" {app.name}" for app in installed())
    return [verbs, verbs.replace(" ", "\n"), apps, numbers, numbers.replace(" ", "\n")]


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises ConfigError where an option has another value than the allowed ones."""
    if value not in allowed:
        raise ConfigError(f"device.phone has no {name} {value!r}; expected one of {', '.join(allowed)}")
