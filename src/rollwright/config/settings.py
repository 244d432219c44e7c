"""The sections that recipes share. Each field is a key of the YAML and of the command line; the doc is its help."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config.limits import Limits
from rollwright.config.schema import Config, Readers, Unread
from rollwright.contracts import ActionRule


class RunSettings(Config):
    """Where the run writes, how long it lasts, from which seed."""

    folder: str = Field("runs/latest", description="Run folder: config, metrics, trajectories, checkpoints, report.")
    seed: int = Field(0, ge=0, description="Fixes task order, start states and every sampled token.")
    steps: int = Field(20, ge=0, description="Rounds of collect, update and sync: the axis of all that is logged.")
    max_minutes: float = Field(0.0, ge=0, description="Stop cleanly after so many minutes; 0 = no limit.")
    resume: Literal["auto", "never", "must"] = Field(
        "auto", description="auto: continue from the folder's last checkpoint if there is one; must: or stop."
    )
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 = only at the end.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints stay on disk.")
    score_s: float = Field(600.0, ge=0, description="Limit of scoring one batch, a clear stop beyond; 0 = none.")
    sync_s: float = Field(900.0, ge=0, description="Limit of one weight sync; 0 = none.")
    checkpoint_s: float = Field(1800.0, ge=0, description="Limit of writing one checkpoint; 0 = none.")
    parity_checks: int = Field(
        2, ge=0, description="So many batches, from the first, are compared with the learner's log-probs; 0 = all."
    )
    transcripts_every: int = Field(5, ge=0, description="Steps between readable transcripts; 0 = none.")
    trackers: list[str] = Field([], description="Further sinks besides metrics.jsonl: tensorboard, trackio, wandb.")
    rank_timeout_s: float = Field(
        1800.0, gt=0, description="Several processes: how long one waits for the others before the run ends."
    )

    limits: ClassVar[Limits] = {"steps": (2**53, "trackers keep a step's number as a float, exact up to here")}


class ModelSettings(Config):
    """The policy."""

    path: str = Field("smollm2", description="`smollm2` (embedded), a Hugging Face folder, or `tiny` (random).")
    lora_rank: int = Field(0, ge=0, description="Train LoRA adapters of this rank; 0 = all weights.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the LoRA adapters in updates.")
    tiny_hidden: int = Field(128, ge=32, description="tiny: width.")
    tiny_layers: int = Field(2, ge=1, description="tiny: layers.")
    tiny_context: int = Field(1024, ge=32, description="tiny: longest sequence.")
    tiny_seed: int = Field(0, ge=0, description="tiny: initial weights.")

    limits: ClassVar[Limits] = {
        "lora_rank": (2**14, "an adapter of a higher rank holds more than the weights that it stands for"),
        "tiny_hidden": (2**13, "a wider model is not tiny: it fills the memory"),
        "tiny_layers": (128, "a deeper model is not tiny: it fills the memory"),
        "tiny_context": (2**20, "its positions are all held in memory"),
    }
    only_for: ClassVar[Readers] = {
        name: {"path": ("tiny",)} for name in ("tiny_hidden", "tiny_layers", "tiny_context", "tiny_seed")
    }

    @model_validator(mode="after")
    def _dropout_is_of_an_adapter(self) -> ModelSettings:
        if self.lora_dropout and not self.lora_rank:
            raise ValueError(
                f"`lora_dropout={self.lora_dropout:g}` is for LoRA adapters, and with `lora_rank=0` there are none: "
                "set `model.lora_rank`, or `learner.dropout=true` for the dropout of the model itself"
            )
        return self


class WorldSettings(Config):
    """The world to act in."""

    name: str = Field(description="Module of rollwright.envs, such as `web.miniwob`, or `package.module:Attribute`.")
    options: dict[str, Any] = Field({}, description="Arguments of the world's `build`.")
    placement: Literal["local", "ray"] = Field(
        "local", description="Where environments are played: in this process, or in Ray actors on any node."
    )
    ray_address: str = Field("", description="ray: a running cluster, or auto; empty starts one on this machine.")
    ray_cpus: float = Field(1.0, ge=0, description="ray: CPUs that one environment takes of its node.")

    only_for: ClassVar[Readers] = {name: {"placement": ("ray",)} for name in ("ray_address", "ray_cpus")}


class RewardSettings(Config):
    """Who scores the episodes."""

    name: str = Field("env", description="Module of rollwright.rewards or `package.module:Attribute`.")
    options: dict[str, Any] = Field({}, description="Arguments of the reward's `build`.")

    def require_outcomes(self) -> None:
        """Raises ValueError for a model's shares and scores: they lie above 0 for most failures too."""
        if self.name in ("outcome_model", "judge") and self.options.get("value", "verdict") != "verdict":
            raise ValueError(
                f"`reward.options.value={self.options['value']}` gives most failures a return above 0, and with "
                "`algorithm.outcome=reward` that is a success: use verdict"
            )


EngineName = Literal["auto", "vllm", "vllm_server", "transformers"]


class EngineSettings(Config):
    """Who samples. `engine=transformers` is short for `engine.name=transformers`."""

    name: EngineName = Field(
        "auto", description="auto: vLLM if importable. vllm_server: processes of their own, here or elsewhere."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is fast.")
    max_batch: int = Field(64, ge=1, description="Requests decoded together, by each server.")
    max_context: int = Field(
        1024, ge=16, description="Prompt plus action, in tokens; where it is not set, less if the model takes less."
    )
    replicas: int = Field(1, ge=1, description="Servers to start.")
    urls: list[str] = Field([], description="Running servers, such as http://10.0.0.2:8000; none is started then.")
    devices: list[str] = Field([], description="CUDA devices of each server: ['1','2'], or ['2,3'] to split a model.")
    served_name: str = Field("policy", description="The model's name at the servers.")
    transport: Literal["file", "ipc", "nccl"] = Field(
        "file", description="Way of new weights: files on one host; ipc: same GPU; nccl: other GPUs and hosts."
    )
    transfer_folder: str = Field("", description="file: where the weights lie; empty = shared memory.")
    update_mode: Literal["keep", "wait"] = Field(
        "keep", description="Requests under way at a weight update: go on under the new weights, or finish first."
    )
    lora_sync: Literal["merge", "adapter"] = Field(
        "merge", description="LoRA policy: send merged weights, or swap the adapter alone."
    )
    request_s: float = Field(170.0, gt=0, description="Limit of one action, retries and restarts included.")
    server_start_s: float = Field(900.0, gt=0, description="Limit of a server's start.")
    server_stall_s: float = Field(60.0, gt=0, description="A server silent for so long is given up and started again.")
    server_restarts: int = Field(3, ge=0, description="How often each server is started again.")
    kv_cache_gib: float = Field(1.0, gt=0, description="Keys and values of one server, without a GPU.")
    gpu_memory_frac: float = Field(0.85, gt=0, le=1, description="Share of the GPU's memory one server takes.")

    shorthand = "name"
    limits: ClassVar[Limits] = {
        "max_batch": (2**16, "keys and values of all of them are held at once"),
        "max_context": (10_000_000, "no model reads more"),
        "replicas": (1000, "each is a process with a copy of the model"),
        "kv_cache_gib": (2**17, "no machine has more memory"),
    }
    only_for: ClassVar[Readers] = {
        key: {"name": ("vllm_server",)}
        for key in (
            *("replicas", "urls", "devices", "served_name", "transport", "update_mode", "lora_sync", "request_s"),
            *("server_start_s", "server_stall_s", "server_restarts", "kv_cache_gib", "gpu_memory_frac"),
        )
    } | {"transfer_folder": {"name": ("vllm_server",), "transport": ("file",)}}


class RolloutSettings(Config):
    """How episodes are played."""

    group_size: int = Field(8, ge=1, description="Episodes per task and start state.")
    groups_per_step: int = Field(12, ge=1, description="Groups collected for one optimiser step.")
    max_turns: int = Field(0, ge=0, description="Turns before the episode is cut; 0 = the world's own limit.")
    max_action_tokens: int = Field(24, ge=1, description="Longest action, stop token included.")
    max_staleness: int = Field(
        0, ge=0, description="Weight updates that an episode may be behind: 0 = on-policy; k plays k batches ahead."
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature; the learner uses the same.")
    context: Literal["append", "windowed"] = Field("windowed", description="Whole history, or latest state.")
    history: int = Field(4, ge=0, description="windowed: how many past actions the prompt shows.")
    action: str = Field(
        "all",
        description="What of an answer the world is given: all; after_think, what follows `</think>`; or a regular "
        "expression, the first group of its last match. All of the answer is learned from.",
    )
    max_observation_tokens: int = Field(0, ge=0, description="Cut longer observations, visibly; 0 = never.")
    parallel_episodes: int = Field(32, ge=1, description="Episodes in flight at once.")
    schedule: Literal["continuous", "rounds"] = Field(
        "continuous",
        description="continuous: the engine never waits; rounds: it is asked when all running episodes wait for it, "
        "so that two runs, or a killed and resumed one, agree bit for bit.",
    )
    retries: int = Field(2, ge=0, description="How often a faulted episode is played again.")
    refills: int = Field(
        1, ge=0, description="How often members lost to faults are replaced by further episodes of their group."
    )
    max_fault_frac: float = Field(0.2, ge=0, le=1, description="Share of lost episodes above which the run stops.")
    episode_s: float = Field(300.0, gt=0, description="Wall-clock limit of an episode.")
    env_call_s: float = Field(30.0, gt=0, description="Limit of one environment call; beyond it is a fault.")
    engine_call_s: float = Field(180.0, gt=0, description="Limit of one generation; beyond it is a fault.")

    limits: ClassVar[Limits] = {
        "max_turns": (1_000_000, "all turns of an episode are held in memory"),
        "max_action_tokens": (1_000_000, "no model writes more at once"),
        "max_staleness": (1000, "so many batches of episodes are held in memory"),
        "history": (1_000_000, "no prompt shows more actions"),
        "max_observation_tokens": (10_000_000, "no model reads more"),
        "parallel_episodes": (100_000, "each has an environment of its own"),
        "retries": (1000, "an episode that faults so often never ends"),
        "refills": (1000, "a group that faults so often never ends"),
    }

    @model_validator(mode="after")
    def _a_batch_fits_in_memory(self) -> RolloutSettings:
        most, episodes = 1_000_000, self.group_size * self.groups_per_step
        if episodes > most:
            raise ValueError(
                f"`group_size={self.group_size}` x `groups_per_step={self.groups_per_step}` are {episodes} episodes in "
                f"one step, which are all held in memory until its update: {most} at most"
            )
        return self

    @model_validator(mode="after")
    def _actions_can_be_found(self) -> RolloutSettings:
        try:
            ActionRule(self.action)
        except ValueError as error:
            raise ValueError(f"`action`: {error}") from error
        return self

    @model_validator(mode="after")
    def _rounds_are_on_policy(self) -> RolloutSettings:
        if self.max_staleness and self.schedule == "rounds":
            raise ValueError(
                f"`max_staleness={self.max_staleness}` plays ahead, so which episodes run together is a matter of "
                "time; `schedule=rounds` fixes it. Use `schedule=continuous`, or `max_staleness=0`"
            )
        return self


class LearnerSettings(Config):
    """The optimiser and its batches."""

    learning_rate: float = Field(1e-6, gt=0, description="AdamW's peak learning rate.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up, in optimiser steps.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped to this.")
    minibatches: int = Field(1, ge=1, description="Optimiser steps one collected batch is split into.")
    epochs: int = Field(1, ge=1, description="Passes over the collected batch.")
    token_budget: int = Field(1024, ge=64, description="Tokens per packed row: memory against speed.")
    layout: Literal["auto", "tree", "padded"] = Field("auto", description="How turns are packed.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Compute type; weights stay fp32.")
    dropout: bool = Field(False, description="Keep the dropout of the model's own configuration on in updates.")

    limits: ClassVar[Limits] = {
        "learning_rate": (1.0, "AdamW moves every weight by up to so much at each step"),
        "token_budget": (2**20, "the attention mask of a row alone holds the square of it, 1 TiB"),
        "minibatches": (1_000_000, "no batch has so many episodes"),
        "epochs": (10_000, "no batch is worth more passes"),
    }


class EvaluationSettings(Config):
    """Judging on held-out start states."""

    split: Literal["validation", "test"] = Field("validation", description="Tune on validation; report test once.")
    seeds_per_task: int = Field(20, ge=1, description="Start states per task.")
    attempts: int = Field(1, ge=1, description="Episodes per start state; above 1 gives pass@k.")
    temperature: float = Field(0.0, ge=0, description="0 = greedy.")
    max_turns: int = Field(0, ge=0, description="Turns before an episode is cut; 0 = as in the rollouts.")
    every: int = Field(0, ge=0, description="Steps between evaluations; 0 = only at the end.")
    at_start: bool = Field(False, description="Also before the first step.")

    limits: ClassVar[Limits] = dict.fromkeys(
        ("seeds_per_task", "attempts", "max_turns"), (1_000_000, "all episodes are held in memory")
    )


class TurnCriticFit(Config):
    """A critic of states or actions: a model of its own beside the policy, and how it is fitted."""

    model: str = Field(
        "", description="Folder or hub name of another transformer to read with, such as RoBERTa; empty: the policy's."
    )
    frozen: bool = Field(False, description="Only heads learn, on the model the run began with; a state is read once.")
    depth: float = Field(1.0, gt=0, le=1, description="Share of its layers that is kept, from the bottom.")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's peak learning rate.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped to this.")
    updates: int = Field(5, ge=0, description="Optimiser steps for one step of the run.")
    batch_size: int = Field(64, ge=1, description="Turns (or trajectories) of one optimiser step.")
    width: int = Field(256, ge=0, description="Hidden layer of the heads; 0 = linear heads.")
    layer_norm: bool = Field(False, description="Layer norm in the heads, for many updates per step.")


class TokenCriticFit(Config):
    """A critic with one value per action token, and how it is fitted."""

    kind: Literal["model", "head"] = Field("model", description="A transformer of its own, or a head on the policy's.")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's peak learning rate for the critic.")


class ReplaySettings(Config):
    """What is learned from besides the run's own episodes."""

    stores: list[str] = Field([], description="Folders of stored trajectories (recipes/collect.py writes them).")


class OnlineReplaySettings(ReplaySettings):
    """What is learned from besides the run's own episodes, and what becomes of it when the run collects some."""

    warmup_turns: int = Field(
        0, ge=0, description="Turns collected after the offline steps before the next update (WSRL); 0 = none."
    )
    retain: bool = Field(True, description="false: after the offline steps `stores` are learned from no more (WSRL).")


class CurriculumSettings(Config):
    """Which task comes next. `curriculum=band` is short for `curriculum.name=band`."""

    name: Literal["uniform", "band", "evolving", "learnability", "level_replay", "alp_gmm"] = Field(
        "uniform",
        description="band, learnability: prefer tasks neither solved nor hopeless; level_replay: those that surprised; "
        "alp_gmm: those where outcomes are changing; evolving: add new ones like the failed.",
    )
    every: int = Field(1, ge=1, description="Steps between two rounds of new tasks.")
    new_tasks: int = Field(16, ge=1, description="Tasks that one round adds at most.")
    num_seeds: int = Field(10, ge=1, description="Failed tasks that a round starts from.")
    given_frac: float = Field(0.2, gt=0, le=1, description="Share of the draws that stays with the world's own tasks.")
    low: float = Field(0.05, ge=0, le=1, description="A new task is kept where a critic's first value lies above ...")
    high: float = Field(0.75, ge=0, le=1, description="... and below; without a critic all are kept.")
    outcome: Literal["verdict", "reward"] = Field(
        "verdict", description="evolving: failed by the world's verdict where it has one, or by no return above 0."
    )
    generator: Literal["world", "endpoint", "engine"] = Field(
        "world", description="Variations by the world, or instructions by a model: an endpoint's, or the run's own."
    )
    url: str = Field("", description="endpoint: an OpenAI-compatible API, such as http://localhost:8000/v1.")
    model: str = Field("", description="endpoint: name of the model there.")
    key_variable: str = Field("", description="endpoint: environment variable that holds its key; empty = no key.")
    max_tokens: int = Field(512, ge=16, description="endpoint, engine: longest answer.")
    window: int = Field(20, ge=1, description="learnability: latest episodes of a task that count.")
    random_frac: float = Field(0.2, ge=0, le=1, description="learnability, alp_gmm: share of uniform draws.")
    mastered_frac: float = Field(0.1, ge=0, le=1, description="learnability: share of draws among mastered tasks.")
    temperature: float = Field(0.1, gt=0, description="level_replay: near 0 the highest score alone is drawn.")
    stale_frac: float = Field(0.1, ge=0, le=1, description="level_replay: share of draws by age.")
    fit_every: int = Field(250, ge=5, description="alp_gmm: groups between two fits, and how many each fit sees.")
    max_components: int = Field(10, ge=2, description="alp_gmm: most Gaussians of a mixture.")
    min_width: float = Field(
        0.07, gt=0, le=1, description="alp_gmm: least standard deviation of a Gaussian, in sides of the task space."
    )
    criterion: Literal["aic", "bic"] = Field("aic", description="alp_gmm: what decides on their number.")
    progress: Literal["absolute", "covariance"] = Field(
        "absolute", description="alp_gmm: change against the nearest earlier task, or with time (Covar-GMM)."
    )

    shorthand = "name"
    only_for: ClassVar[Readers] = (
        {
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
        if self.name == "learnability" and self.random_frac + self.mastered_frac > 1:
            raise ValueError("`curriculum.random_frac` and `curriculum.mastered_frac` together are above 1")
        if self.name == "evolving" and self.low > self.high:
            raise ValueError(f"no value lies above `curriculum.low={self.low}` and below `curriculum.high={self.high}`")
        return self


class StartSettings(Config):
    """Where episodes begin. `starts=snapshots` is short for `starts.name=snapshots`; evaluation ignores it."""

    name: Literal["initial", "snapshots"] = Field(
        "initial", description="snapshots: a share of the groups begins in the middle of an earlier episode (S3RL)."
    )
    source: Literal["own", "teacher"] = Field(
        "own", description="Whose episodes leave snapshots: the run's own, or the world's scripted teacher's."
    )
    frac: float = Field(0.8, ge=0, le=1, description="Share of the groups that begin at one, once there are any.")
    steps: int = Field(0, ge=0, description="First steps of the run that begin at snapshots; 0 = all of them.")
    every: int = Field(1, ge=1, description="Turns between two snapshots of an episode.")
    episodes: int = Field(10, ge=1, description="own: kept per task, the best by return; teacher: played in all.")
    capacity: int = Field(2000, ge=1, description="Snapshots kept in all.")
    pick: Literal["clusters", "uniform"] = Field(
        "clusters", description="clusters: first one of k clusters of like value, then one of its snapshots."
    )
    clusters: int = Field(6, ge=1, description="clusters: k.")
    value: Literal["return", "progress"] = Field(
        "return", description="clusters: by what its episode still earned, or by 1 - turns left / turn limit."
    )
    gamma: float = Field(0.95, ge=0, le=1, description="return: discount per turn.")
    max_turns: int = Field(0, ge=0, description="Turns after a snapshot before the cut; 0 = what the limit leaves.")

    shorthand = "name"
    only_for: ClassVar[Readers] = {
        key: {"name": ("snapshots",)}
        for key in ("source", "frac", "steps", "every", "episodes", "capacity", "pick", "max_turns")
    } | {
        "clusters": {"name": ("snapshots",), "pick": ("clusters",)},
        "value": {"name": ("snapshots",), "pick": ("clusters",)},
        "gamma": {"name": ("snapshots",), "pick": ("clusters",), "value": ("return",)},
    }


class PolicyLossSettings(Config):
    """The loss on the tokens that the policy sampled."""

    loss: Literal["reinforce", "ppo", "gspo", "gspo_token", "cispo", "rloo_sequence"] = Field(
        "ppo", description="Ratio level and clip."
    )
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"] = Field(
        "token-mean", description="How token losses become one number."
    )
    max_length: int | None = Field(
        None, ge=1, description="constant: the length L that Dr. GRPO divides by; null = the longest an episode can be."
    )
    clip_low: float = Field(0.2, gt=0, description="The ratio is clipped below 1 - clip_low.")
    clip_high: float = Field(0.2, gt=0, description="... and above 1 + clip_high (DAPO: 0.28).")
    dual_clip: float | None = Field(None, gt=1, description="Bound for negative advantages, such as 3.0; null = off.")
    correction: Literal["none", "token_tis", "sequence_tis", "token_mask", "sequence_mask"] = Field(
        "token_tis",
        description="Importance weights for the engine's slightly different or older policy: cut at the cap (tis), or "
        "what lies above it left out (mask).",
    )
    correction_cap: float = Field(2.0, ge=1, description="Cap of those weights.")
    sequence_filter: Literal["none", "geometric", "off_policy"] = Field(
        "none",
        description="Leave out whole sequences: whose mean weight lies outside a band (geometric), or that did badly "
        "and that the policy has moved away from (off_policy, arXiv:2512.02556).",
    )
    filter_low: float = Field(0.999, gt=0, le=1, description="geometric: lowest geometric mean of the weights.")
    filter_high: float = Field(1.001, ge=1, description="geometric: highest one.")
    filter_threshold: float = Field(0.1, ge=0, description="off_policy: drift it tolerates, in nats per token.")
    kl_coef: float = Field(0.0, ge=0, description="KL to the frozen reference as a loss term; 0 loads no reference.")
    kl_kind: Literal["k2", "k3", "abs", "k3+"] = Field("k3", description="Estimator of that KL.")
    entropy_coef: float = Field(0.0, ge=0, description="Entropy bonus.")

    only_for: ClassVar[Readers] = {
        "max_length": {"aggregation": ("constant",)},
        "clip_low": {"loss": ("ppo", "gspo", "gspo_token", "cispo", "rloo_sequence")},
        "clip_high": {"loss": ("ppo", "gspo", "gspo_token", "cispo", "rloo_sequence")},
        "dual_clip": {"loss": ("ppo", "gspo", "gspo_token", "rloo_sequence")},
        "correction_cap": {"correction": ("token_tis", "sequence_tis", "token_mask", "sequence_mask")},
        "filter_low": {"sequence_filter": ("geometric",)},
        "filter_high": {"sequence_filter": ("geometric",)},
        "filter_threshold": {"sequence_filter": ("off_policy",)},
    }

    @model_validator(mode="after")
    def _ratios_are_positive(self) -> PolicyLossSettings:
        if self.clip_low > 1 and self.loss not in ("cispo", "reinforce"):
            whose = "" if "clip_low" in self.model_fields_set else " (the preset's, set your own)"
            raise ValueError(
                f"`clip_low={self.clip_low:g}`{whose} would clip the ratio below {1 - self.clip_low:g}, where it never "
                "is: with `loss=cispo` it means no lower cap, else use at most 1"
            )
        return self

    def objective(self) -> dict[str, Any]:
        """The arguments of `rollwright.learner.objective.PolicyObjective`."""
        names = (
            "aggregation max_length clip_low clip_high dual_clip correction correction_cap sequence_filter filter_low "
            "filter_high filter_threshold kl_coef kl_kind entropy_coef"
        )
        return {"loss_name": self.loss} | {name: getattr(self, name) for name in names.split()}


OWN_UPDATES: Unread = dict.fromkeys(
    ("learner.minibatches", "learner.epochs"), "the recipe's own keys say how often the policy is updated"
)
"""For recipes whose updates are draws from a store: passes over what was just collected are none of theirs."""


NO_GROUPS: dict[str, str] = dict.fromkeys(
    [f"rollout.{key}" for key in ("group_size", "groups_per_step", "max_staleness", "schedule", "refills")],
    "no groups are collected for a learner here, every episode is played by itself",
) | dict.fromkeys(("model.lora_rank", "model.lora_dropout"), "no adapter is trained here, all weights are")
"""For recipes without a loop: they play episodes one by one, or read them."""

ONE_EVALUATION: dict[str, str] = dict.fromkeys(
    ("evaluation.every", "evaluation.at_start"), "there are no steps here, the evaluation is all that is done"
) | {"rollout.temperature": "evaluation.temperature counts"}
"""For recipes that judge once."""


class LoopConfig(Config):
    """What every on-policy recipe reads: world, policy, engine, rollouts, learner, evaluation."""

    run: RunSettings = RunSettings()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    reward: RewardSettings = RewardSettings()
    engine: EngineSettings = EngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    learner: LearnerSettings = LearnerSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    starts: StartSettings = StartSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


class PolicyLoopConfig(LoopConfig):
    """A loop whose loss corrects for the policy that sampled, and which may therefore use older episodes."""

    algorithm: PolicyLossSettings = PolicyLossSettings()

    @model_validator(mode="after")
    def _older_episodes_are_corrected(self) -> PolicyLoopConfig:
        ahead, correction = self.rollout.max_staleness, self.algorithm.correction
        if ahead and correction == "none":
            raise ValueError(
                f"`rollout.max_staleness={ahead}` trains on what older weights sampled, which "
                "`algorithm.correction=none` leaves as it is: use token_tis, sequence_tis, token_mask or sequence_mask"
            )
        return self
