"""The HTTP client of one server: token-in/token-out generation, health, and the control plane of weight updates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rollwright.contracts import EngineFault, MissingDependency, Span
from rollwright.generation.engine import Generation, Sampling

if TYPE_CHECKING:
    import aiohttp

GENERATE = "/inference/v1/generate"
UNVERSIONED = "default"
"""What vLLM calls the weights of a server that nobody has updated."""


class ServerLost(EngineFault):
    """No whole answer came: refused, reset, or cut off. Another server may answer the same request."""


class ServerFailed(EngineFault):
    """The server answered with an error of its own (HTTP 5xx). Another server may do better, the next may not."""


class ForeignVersion(EngineFault):
    """The server sampled from weights that it was not given by this engine."""


class ServerClient:
    """Speaks to one server. Lives on one event loop; the session is the engine's, shared by all clients."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._session = session

    async def generate(
        self,
        prompt_ids: tuple[int, ...],
        sampling: Sampling,
        *,
        request_id: str,
        model: str,
        session_id: str,
        biases: Mapping[int, float] | None = None,
    ) -> Generation:
        """One action; see `Engine.generate`. A cancelled call closes the connection, and the server drops the request.

        Args:
            biases: added to the logits of these ids (`vocabulary.biases_against`).

        Raises:
            ServerLost, ServerFailed: another server may be asked.
            EngineFault: the request is refused, or the answer cannot be read.
        """
        body = request_body(prompt_ids, sampling, request_id=request_id, model=model, biases=biases)
        before = asyncio.get_running_loop().time()
        # No time limit of its own: the engine's request_s covers all tries together.
        answer = await self.post(GENERATE, body, headers={"X-Session-ID": session_id})
        return generation_of(answer, seconds=asyncio.get_running_loop().time() - before, url=self.url)

    async def get(self, path: str, *, timeout_s: float | None = None) -> Any:
        """The answer's JSON, None where it has no body; raises as `generate` does."""
        return await self._ask("GET", path, timeout_s=timeout_s)

    async def post(
        self,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """The answer's JSON, None where it has no body; raises as `generate` does."""
        return await self._ask("POST", path, body=body, query=query, headers=headers, timeout_s=timeout_s)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=timeout_s)
        call = self._session.request(
            method, self.url + path, json=body, params=query, headers=headers, timeout=limit, allow_redirects=False
        )
        try:
            async with call as response:
                text = await response.text()
                status = response.status
        except TimeoutError as error:  # an OSError too, so it is caught first
            raise ServerLost(f"server {self.url} did not answer {path} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerLost(f"server {self.url} cannot be reached at {path}: {error!r}") from error
        if status != 200:
            raise refusal(self.url, path, status, text)
        return as_json(text, self.url, path)

    async def probe(self, timeout_s: float) -> None:
        """Does the engine behind the server answer? Raises where it does not.

        `/health` is answered by the server's front alone; `/is_paused` goes through to the engine's own process.
        """
        await self.get("/is_paused", timeout_s=timeout_s)

    async def version(self) -> str:
        """The weights' version as the server has it."""
        return str(await self._field("/weight_info", "weight_version"))

    async def served(self) -> list[dict[str, Any]]:
        """The models that the server answers to: `id`, `root`, `max_model_len`."""
        return list(await self._field("/v1/models", "data"))

    async def _field(self, path: str, name: str) -> Any:
        answer = await self.get(path, timeout_s=60.0)
        if not isinstance(answer, dict) or name not in answer:
            raise EngineFault(f"server {self.url} answered {path} without {name!r}: {answer!r:.200}. Is this vLLM?")
        return answer[name]


def open_session() -> aiohttp.ClientSession:
    """The HTTP session of an engine; to be called on its event loop.

    Raises:
        MissingDependency: aiohttp, which vLLM brings, is not installed.
    """
    try:
        import aiohttp
    except ImportError as error:
        raise MissingDependency(
            "engine 'vllm_server' needs aiohttp, which vLLM brings: pip install 'rollwright[vllm]' with a GPU, "
            "'rollwright[cpu]' without; or choose engine=transformers"
        ) from error
    # Every episode waits on a connection of its own; a proxy has no place between us and our servers. vLLM closes an
    # idle connection after 5 s: one that is given up before that is never written to while it closes.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    return aiohttp.ClientSession(connector=connector, trust_env=False)


def request_body(
    prompt_ids: tuple[int, ...],
    sampling: Sampling,
    *,
    request_id: str,
    model: str,
    biases: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """The request as the token-in/token-out endpoint reads it."""
    return {
        "request_id": request_id,
        "model": model,
        "token_ids": list(prompt_ids),
        "output_mode": "tokens",
        "sampling_params": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,  # only the tokens named above end an action
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
            **({"logit_bias": dict(biases)} if biases else {}),
        },
    }


def generation_of(answer: Any, *, seconds: float, url: str) -> Generation:
    """The server's answer as the engine contract has it.

    Raises:
        EngineFault: something is missing or does not fit together.
    """
    try:
        choice = answer["choices"][0]
        token_ids = tuple(int(token) for token in choice["token_ids"])
        logprobs = tuple(float(entry["logprob"]) for entry in choice["logprobs"]["content"])
        spans = spans_of(choice["weight_versions"], len(token_ids))
        cached = ((answer.get("usage") or {}).get("prompt_tokens_details") or {}).get("cached_tokens")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineFault(
            f"server {url} gave an answer that cannot be read ({error!r}); expected token ids, log-probs and weight "
            "versions as vLLM 0.32 gives them: look at its version (GET /version)"
        ) from error
    reason = choice.get("finish_reason")
    # The server ended it, not the request's own limits: another server may answer it.
    if reason == "abort":
        raise ServerLost(f"server {url} dropped the request (finish reason 'abort')")
    if reason not in ("stop", "length") or len(token_ids) != len(logprobs) or not token_ids:
        raise EngineFault(
            f"server {url} gave {len(token_ids)} tokens, {len(logprobs)} log-probs and finish reason {reason!r}; "
            "expected as many of both, and stop or length"
        )
    return Generation(
        token_ids=token_ids,
        logprobs=logprobs,
        finish_reason=reason,
        spans=spans,
        cached_tokens=int(cached or 0),
        generate_s=seconds,  # the wait in the server's queue is part of it, and `wait_s` stays 0
    )


def spans_of(versions: Any, count: int) -> tuple[Span, ...]:
    """The server's spans, checked: they cover `count` tokens without gap, each with a whole number for its version.

    Raises:
        ForeignVersion: a version that no engine of ours gives.
        ValueError: a gap or an overlap.
    """
    spans, at = [], 0
    for entry in versions or ():
        if entry["start"] != at or entry["end"] <= at:
            raise ValueError(f"weight versions {versions} do not cover the tokens one after the other")
        spans.append(Span(start=at, end=entry["end"], version=as_version(entry["version"])))
        at = entry["end"]
    if at != count:
        raise ValueError(f"weight versions {versions} cover {at} of {count} tokens")
    return tuple(spans)


def as_version(text: str) -> int:
    """A weight version as a number; weights that nobody has updated are version 0."""
    if text == UNVERSIONED:
        return 0
    if not text.isdecimal():
        raise ForeignVersion(
            f"the server's weights are of version {text!r}; expected a number: something else updates this server"
        )
    return int(text)


def refusal(url: str, path: str, status: int, text: str) -> EngineFault:
    """An error status as an exception that says what to do."""
    message = error_message(text)
    what = f"server {url} answered {path} with HTTP {status}: {message}"
    # Below 500 the request or the server's set-up is wrong, and asking again would change nothing.
    if status >= 500:
        return ServerFailed(what)
    hints = {
        403: "start the server with --enable-scale-out",
        404: "is this the right server? The engine needs vLLM 0.32 with --enable-scale-out, VLLM_SERVER_DEV_MODE=1 for "
        "weight updates, and the model under the name engine.served_name",
    }
    hint = hints.get(status)
    return EngineFault(f"{what}. {hint}" if hint else what)


def error_message(text: str) -> str:
    """The message out of an error body, whichever of the usual shapes it has."""
    try:
        body = json.loads(text)
    except ValueError:
        return text.strip()[:500] or "no message"
    if isinstance(body, dict):
        # `error` is OpenAI's shape, `detail` is FastAPI's.
        inner = body.get("error", body.get("detail", body))
        message = inner.get("message", inner) if isinstance(inner, dict) else inner
        return str(message)[:500]
    return str(body)[:500]


def as_json(text: str, url: str, path: str) -> Any:
    """The body as an object; an error says what came instead."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        if path == "/v1/load_lora_adapter":
            return text  # a plain sentence
        raise EngineFault(f"server {url} answered {path} with {text[:200]!r}; expected JSON: is this vLLM?") from error
