"""The sections `curriculum` and `starts`: which task comes next, and where its episodes begin."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config import OWN, Config, Parts, Readers

_HERE = "rollwright.curriculum"
CURRICULA = Parts(
    what="curriculum",
    given=("tasks", "seed", "world"),
    contract=("next", "update", "metrics", "state_dict", "load_state_dict"),
    ours={
        "uniform": f"{_HERE}.samplers:UniformCurriculum",
        "band": f"{_HERE}.samplers:BandCurriculum",
        "evolving": f"{_HERE}.evolving:evolving_curriculum",
        "learnability": f"{_HERE}.learnability:LearnabilityCurriculum",
        "level_replay": f"{_HERE}.level_replay:LevelReplayCurriculum",
        "alp_gmm": f"{_HERE}.alp_gmm:alp_gmm_curriculum",
    },
)


class CurriculumSettings(Config):
    """Which task comes next. `curriculum=band` is short for `curriculum.name=band`."""

    name: Annotated[str, CURRICULA] = Field(
        "uniform",
        description="How tasks are chosen. band, learnability: prefer tasks that are neither solved nor "
        "hopeless; level_replay: tasks with surprising outcomes; alp_gmm: tasks whose outcomes "
        "are changing; evolving: add new tasks like the failed ones; or your own curriculum.",
    )
    options: dict[str, Any] = Field({}, description="Arguments of your own curriculum.")
    every: int = Field(1, ge=1, description="Steps between two rounds of new tasks.")
    new_tasks: int = Field(16, ge=1, description="Maximum number of tasks that one round adds.")
    # 10 seeds and the band 0.05 to 0.75 are those of WebRL (arXiv:2411.02337).
    num_seeds: int = Field(10, ge=1, description="Failed tasks that seed one round.")
    # Grown tasks drift towards trivial ones, so some draws always stay with the world's own.
    given_frac: float = Field(0.2, gt=0, le=1, description="Share of draws reserved for the world's own tasks.")
    low: float = Field(
        0.05, ge=0, le=1, description="Keep a new task only if the critic's initial value is above this."
    )
    high: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Keep a new task only if the critic's initial value is below this; without a critic, all are kept.",
    )
    outcome: Literal["verdict", "reward"] = Field(
        "verdict",
        description="evolving: whether a failure means the world's verdict (where there is one) or a return "
        "of 0 or less.",
    )
    generator: Literal["world", "endpoint", "engine"] = Field(
        "world",
        description="Where new tasks come from: variations by the world, or instructions by a model (an "
        "endpoint, or the run's own engine).",
    )
    url: str = Field("", description="endpoint: an OpenAI-compatible API, such as http://localhost:8000/v1.")
    model: str = Field("", description="endpoint: name of the model that it serves.")
    key_variable: str = Field("", description="endpoint: environment variable that holds the API key; empty = no key.")
    max_tokens: int = Field(512, ge=16, description="endpoint, engine: maximum length of an answer, in tokens.")
    window: int = Field(20, ge=1, description="learnability: number of latest episodes of a task that count.")
    random_frac: float = Field(0.2, ge=0, le=1, description="learnability, alp_gmm: share of uniform draws.")
    mastered_frac: float = Field(0.1, ge=0, le=1, description="learnability: share of draws among mastered tasks.")
    # 0.1 for both the temperature and the stale share are the values of PLR (arXiv:2010.03934).
    temperature: float = Field(
        0.1,
        gt=0,
        description="level_replay: temperature of the draw; near 0, only the task with the highest score is drawn.",
    )
    stale_frac: float = Field(
        0.1, ge=0, le=1, description="level_replay: share of draws that favour tasks not played for long."
    )
    fit_every: int = Field(
        250, ge=5, description="alp_gmm: groups between two fits, and number of groups that each fit uses."
    )
    max_components: int = Field(10, ge=2, description="alp_gmm: maximum number of Gaussians in a mixture.")
    min_width: float = Field(
        0.07,
        gt=0,
        le=1,
        description="alp_gmm: minimum standard deviation of a Gaussian, relative to the sides of the task space.",
    )
    criterion: Literal["aic", "bic"] = Field(
        "aic", description="alp_gmm: criterion that chooses the number of Gaussians."
    )
    progress: Literal["absolute", "covariance"] = Field(
        "absolute", description="alp_gmm: progress measured against the nearest earlier task, or over time (Covar-GMM)."
    )

    shorthand = "name"
    only_for: ClassVar[Readers] = (
        {"options": {"name": (OWN,)}}
        | {
            key: {"name": ("evolving",)}
            for key in ("every", "new_tasks", "num_seeds", "given_frac", "low", "high", "outcome", "generator")
        }
        | {key: {"name": ("evolving",), "generator": ("endpoint",)} for key in ("url", "model", "key_variable")}
        | {"max_tokens": {"name": ("evolving",), "generator": ("endpoint", "engine")}}
        | {key: {"name": ("learnability",)} for key in ("window", "mastered_frac")}
        | {"random_frac": {"name": ("learnability", "alp_gmm")}}
        | {key: {"name": ("level_replay",)} for key in ("temperature", "stale_frac")}
        | {key: {"name": ("alp_gmm",)} for key in ("fit_every", "max_components", "min_width", "criterion", "progress")}
    )

    @model_validator(mode="after")
    def _shares_are_of_one_whole(self) -> CurriculumSettings:
        # Draws by p (1 - p) get what these two shares leave over.
        if self.name == "learnability" and self.random_frac + self.mastered_frac > 1:
            raise ValueError("`curriculum.random_frac` and `curriculum.mastered_frac` together are above 1")
        if self.name == "evolving" and self.low > self.high:
            raise ValueError(f"no value lies above `curriculum.low={self.low}` and below `curriculum.high={self.high}`")
        return self


class StartSettings(Config):
    """Where episodes begin. `starts=snapshots` is short for `starts.name=snapshots`; evaluation ignores it."""

    name: Literal["initial", "snapshots", "guide_prefix", "failures", "restarts"] = Field(
        "initial",
        description="Where a share of the groups starts. snapshots: in the middle of an earlier episode (S3RL); "
        "guide_prefix: after the first turns of a guide (RLGF); failures: a few turns before an own episode failed; "
        "restarts: the same of own solved and failed episodes, with a forced reflection (Satori).",
    )
    source: Literal["own", "teacher"] = Field(
        "own", description="Whose episodes provide the snapshots: the run's own, or the world's scripted teacher's."
    )
    # The rest begins at the initial state, which evaluation starts from and which must not be forgotten.
    frac: float = Field(
        0.8, ge=0, le=1, description="Share of groups that do not start at the initial state, once they can."
    )
    steps: int = Field(0, ge=0, description="Number of initial steps with such starts; 0 = all steps.")
    every: int = Field(1, ge=1, description="Turns between two snapshots of an episode.")
    # S3RL plays 10 teacher episodes and by default keeps all of them.
    episodes: int = Field(
        10,
        ge=1,
        description="own: number of episodes kept per task, best return first; teacher: number of episodes to play; "
        "restarts: number of latest episodes kept per task and outcome.",
    )
    capacity: int = Field(2000, ge=1, description="Maximum number of states kept in total.")
    pick: Literal["clusters", "uniform"] = Field(
        "clusters",
        description="How a snapshot is drawn. clusters: first one of k clusters of similar value, then a "
        "snapshot in it.",
    )
    # S3RL has k = 6 for TD3 and PPO, and 4 for SAC.
    clusters: int = Field(6, ge=1, description="clusters: the number of clusters, k.")
    value: Literal["return", "progress"] = Field(
        "return",
        description="clusters: value of a snapshot: what its episode still earned, or 1 - turns left / turn limit.",
    )
    gamma: float = Field(0.95, ge=0, le=1, description="return: discount per turn.")
    # Satori takes back at most T = 2 segments.
    back: int = Field(
        2,
        ge=1,
        description="failures: number of turns before the end at which to start; restarts: maximum of that number, "
        "drawn uniformly.",
    )
    reflections: list[str] = Field(
        ["<|reflect|>"],
        description="restarts: texts that the first action starts with, one drawn per group; [] = none is forced.",
    )
    backward_every: int = Field(
        0,
        ge=0,
        description="guide_prefix: the prefix is all but the last turn at first, and one turn shorter after every so "
        "many steps (TCOD, B2F); 0 = random lengths.",
    )
    max_turns: int = Field(
        0, ge=0, description="Maximum number of turns after such a start; 0 = the rest of the turn limit."
    )

    shorthand = "name"
    only_for: ClassVar[Readers] = (
        {key: {"name": ("snapshots", "guide_prefix", "failures", "restarts")} for key in ("frac", "steps", "max_turns")}
        | {key: {"name": ("snapshots",)} for key in ("source", "every", "pick")}
        | {
            "episodes": {"name": ("snapshots", "restarts")},
            "capacity": {"name": ("snapshots", "failures", "restarts")},
            "back": {"name": ("failures", "restarts")},
            "reflections": {"name": ("restarts",)},
            "backward_every": {"name": ("guide_prefix",)},
            "clusters": {"name": ("snapshots",), "pick": ("clusters",)},
            "value": {"name": ("snapshots",), "pick": ("clusters",)},
            "gamma": {"name": ("snapshots",), "pick": ("clusters",), "value": ("return",)},
        }
    )
