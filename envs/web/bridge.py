"""Run as a program by another Python: plays one Gymnasium environment with text actions, over lines of JSON.

BrowserGym pins versions that clash with ours, so it lives in a virtual environment of its own. This file is all that
runs there besides it: it imports the standard library, Gymnasium, and the modules that register the environments.

One request a line, one reply a line: {"call": "make" | "reset" | "step" | "close", ...}. A reply has "ok"; where
that is false, "error" says why. A step whose action the environment cannot take has "refused" instead of a result.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

MAX_TEXT = 200_000
MAX_ERROR = 2000
REFUSALS = (ValueError, TypeError, LookupError, SyntaxError, AssertionError, NotImplementedError)
"""What code raises about a value that it was given; the value of a step is the policy's action."""


def describe(observation: Any) -> dict[str, str]:
    """What a policy needs of an observation: goal, text of the page, last error."""
    if isinstance(observation, str):
        return {"goal": "", "text": observation[:MAX_TEXT], "error": ""}
    text = observation.get("axtree_txt") or _tree(observation)
    lines = [f"At {observation['url']}"] if observation.get("url") else []
    return {
        "goal": str(observation.get("goal") or ""),
        "text": "\n".join([*lines, text])[:MAX_TEXT],
        "error": str(observation.get("last_action_error") or "")[:MAX_ERROR],
    }


def _tree(observation: Any) -> str:
    """BrowserGym's own text of the accessibility tree: `[12] button 'Send', clickable`."""
    if "axtree_object" not in observation:
        return str(observation.get("text") or "")
    flatten = importlib.import_module("browsergym.utils.obs").flatten_axtree_to_str
    properties = observation.get("extra_element_properties")
    return str(flatten(observation["axtree_object"], extra_properties=properties, with_clickable=True))


class Bridge:
    """Holds the one environment."""

    def __init__(self) -> None:
        self._env: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        match request["call"]:
            case "make":
                import gymnasium

                for module in request["modules"]:
                    importlib.import_module(module)
                self._env = gymnasium.make(request["id"], **request["options"])
                return {}
            case "reset":
                observation, _ = self._env.reset(seed=request["seed"])
                return describe(observation)
            case "step":
                try:
                    observation, reward, terminated, truncated, _ = self._env.step(request["action"])
                except REFUSALS as refusal:
                    return {"refused": f"{type(refusal).__name__}: {refusal}"[:MAX_ERROR]}
                ends = {"terminated": bool(terminated), "truncated": bool(truncated)}
                return {**describe(observation), "reward": float(reward), **ends}
            case "close":
                if self._env is not None:
                    self._env.close()
                    self._env = None
                return {}
        raise ValueError(f"no call {request['call']!r}")


def main() -> None:
    """Serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the environment prints must not mix with the replies
    bridge = Bridge()
    for line in sys.stdin:
        try:
            reply = {"ok": True, **bridge.answer(json.loads(line))}
        except Exception as error:
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"[:MAX_ERROR]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    bridge.answer({"call": "close"})


if __name__ == "__main__":
    # A program's own folder comes first on the path: its neighbour browsergym.py would hide the package of that name.
    sys.path.pop(0)
    main()
