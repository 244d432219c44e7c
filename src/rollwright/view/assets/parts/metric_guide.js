// What a metric means: the line of docs/metrics.md for a name, placeholders included.

import { useData } from "rw/data";
import { useMemo } from "rw/kit";

/** The areas in the order of the page, each with its title. An area that is not here comes after them. */
export const AREAS = {
  eval: "Evaluation",
  eval_task: "Evaluation by task",
  reward: "Reward",
  rollout: "Rollouts",
  policy: "Policy",
  optim: "Optimiser",
  critic: "Critic",
  curriculum: "Curriculum",
  batch: "Batches",
  engine: "Engine",
  time: "Time",
  ledger: "Where the time went",
};

/** The part of a name before the first slash. */
export function areaOf(name) {
  return name.split("/")[0];
}

/** What most people look at first: success, reward, KL, entropy, length, faults. */
export const OVERVIEW = [
  "eval/success_frac", "rollout/success_frac", "reward/total_mean", "policy/kl_ref_mean", "policy/kl_old_mean",
  "policy/sampler_gap_mean", "policy/entropy_mean", "rollout/nll_mean", "rollout/num_turns_mean",
  "rollout/action_tokens_mean", "rollout/groups_informative_frac", "rollout/env_error_frac", "optim/grad_norm",
];

/** A function from a metric's name to {text, healthy}, or null where the guide has no line for it. */
export function useMetricGuide() {
  const { data } = useData("api/metric-names");
  return useMemo(() => {
    const patterns = Object.entries(data ?? {}).filter(([name]) => name.includes("<")).map(([name, line]) => [asPattern(name), line]);
    return (name) => {
      if (data && Object.hasOwn(data, name)) return data[name];
      return patterns.find(([pattern]) => pattern.test(name))?.[1] ?? null;
    };
  }, [data]);
}

/** "reward/<part>_mean" as an expression that its names match. */
export function asPattern(name) {
  const parts = name.split(/<[^>]*>/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join("[^/]+")}$`);
}
