"""vLLM inside this process: one thread steps the engine, requests join at any moment, weights come from the learner.

CPU and CUDA share the code but for the weight update. On CPU, vLLM packs the linear layers when it loads them, so the
weights go through its layer-wise reload; a head tied to the embedding is left packed from the old weights by that, and
is packed again here. Always follow an update by the parity gate (`rollwright.generation.parity`).
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rollwright.config import prepare_environment, wants_everything
from rollwright.contracts import ConfigError, MissingDependency
from rollwright.generation.engine import Perturb, Sampling
from rollwright.generation.threaded_engine import Request, ThreadedEngine
from rollwright.generation.vllm_logits import LogitsHook, can_attach, processor_class
from rollwright.models import biases_against, unknown_ids

if TYPE_CHECKING:
    from torch import Tensor

_GIB = 2**30


class VLLMEngine(ThreadedEngine):
    """Engine "vllm". Takes 5 to 10 s to build on CPU; one per process is the rule.

    Args:
        model_path: a folder in Hugging Face format.
        dtype: of the engine's weights; float32 agrees with a float32 learner to 1e-4, bfloat16 to 0.04 on average.
        max_batch: requests that run together; further ones wait.
        block_size: tokens of one prefix-cache block: a shared prefix shorter than it is computed again.
        kv_cache_gib: memory for keys and values on CPU; VLLM_CPU_KVCACHE_SPACE, where the user has set it, wins.
        gpu_memory_frac: share of the GPU's memory for weights, keys and values (CUDA).

    Raises:
        MissingDependency: vLLM is not installed.
        ConfigError: the tokenizer has ids without rows in the model, or the model more rows without ids than vLLM can
            leave out.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        context_length: int = 1024,
        stop_token_ids: tuple[int, ...] = (),
        max_batch: int = 64,
        block_size: int = 32,
        kv_cache_gib: float = 1.0,
        gpu_memory_frac: float = 0.4,
        seed: int = 0,
    ) -> None:
        if not vllm_importable():
            raise MissingDependency(
                "engine 'vllm' needs vLLM: pip install 'rollwright[vllm]' with a GPU, 'rollwright[cpu]' without; "
                "or choose engine=transformers"
            )
        settings: dict[str, Any] = {
            "dtype": dtype,
            "max_model_len": context_length,
            "max_num_seqs": max_batch,
            # Without chunked prefill vLLM refuses a budget below max_model_len: a prompt must fit into one step.
            "max_num_batched_tokens": max(4096, context_length),
            "block_size": block_size,
            "seed": seed,
            "gpu_memory_utilization": gpu_memory_frac,
        }
        backend = self._vllm = VLLMBackend(
            Path(model_path), settings, stop_token_ids=stop_token_ids, cpu_kv_cache_bytes=int(kv_cache_gib * _GIB)
        )
        super().__init__(
            "vllm",
            backend,
            context_length=context_length,
            vocab_size=int(backend.engine.model_config.get_vocab_size()),
            stop_token_ids=stop_token_ids,
            gather_s=0.0,
        )

    def perturb(self, change: Perturb | None) -> None:
        """Change the logits of every next token from here on; see `PerturbedEngine.perturb`.

        Raises:
            ConfigError: vLLM's engine core runs in another process.
        """
        if change is not None and not self._vllm.hook.attached:
            raise ConfigError(
                "this vLLM cannot change its logits, which needs its engine core in this process: set "
                "VLLM_ENABLE_V1_MULTIPROCESSING=0 in the environment, or use engine.name=transformers"
            )
        with self._exclusive():  # between two steps: the hook is read on the engine's thread
            self._vllm.hook.change = change


class VLLMBackend:
    """vLLM's engine and the requests that it works on."""

    def __init__(
        self, folder: Path, settings: dict[str, Any], *, stop_token_ids: tuple[int, ...], cpu_kv_cache_bytes: int
    ) -> None:
        self.biases = biases_against(unknown_ids(folder), folder)
        # Sets VLLM_ENABLE_V1_MULTIPROCESSING=0 unless the user has set it: the engine core then runs in this process.
        prepare_environment()
        with _preload_unchanged():
            import torch
            from vllm import LLM

            self.on_cpu = not torch.cuda.is_available()
            self.hook = LogitsHook()
            hooked = can_attach(on_cpu=self.on_cpu)
            self.llm: Any = LLM(
                str(folder),
                skip_tokenizer_init=True,  # ids in, ids out
                trust_remote_code=False,
                enforce_eager=self.on_cpu,  # compiling takes 40 s on CPU and saves a tenth
                # The worker stays in this process: iterators of weights and functions can be handed to it as they are.
                distributed_executor_backend="uni",
                enable_prefix_caching=True,
                # A prompt cut in two by the token budget of a step rewinds the request's random generator, which CPU
                # generators cannot do: a seeded request would kill the engine.
                enable_chunked_prefill=not self.on_cpu,
                logprobs_mode="processed_logprobs",  # after temperature: those of the distribution sampled from
                logits_processors=[processor_class(self.hook)] if hooked else None,
                disable_log_stats=True,
                use_tqdm_on_load=wants_everything(),
                kv_cache_memory_bytes=cpu_kv_cache_bytes if self.on_cpu else None,
                **settings,
            )
        if self.on_cpu:
            rank_without_compiling()
        self.engine: Any = self.llm.llm_engine
        self.stop_token_ids = stop_token_ids
        self.expected = weight_names(folder)  # vLLM does not complain of weights that never come
        self.requests: dict[str, Request] = {}
        self.leaders: dict[tuple[int, ...], Request] = {}  # prompts that are being prefilled, by whose request
        self.followers: list[Request] = []
        self.block_size = int(settings["block_size"])
        self.numbers = itertools.count()

    def add(self, request: Request) -> None:
        """Queue a request. One whose prompt is being prefilled right now waits: a moment later the prefix cache has it.

        vLLM computes equal prompts that arrive together once each; the members of a group always do.
        """
        if request.prompt_ids in self.leaders:
            self.followers.append(request)
            return
        if len(request.prompt_ids) > self.block_size:  # a shorter prompt fills no block that could be cached
            self.leaders[request.prompt_ids] = request
        self._submit(request)

    def _submit(self, request: Request) -> None:
        key = f"{request.request_id}#{next(self.numbers)}"  # a retried turn may come under the same id
        prompt = {"prompt_token_ids": list(request.prompt_ids)}
        self.engine.add_request(key, prompt, self._params(request.sampling))
        self.requests[key] = request

    def _prefilled(self, request: Request) -> None:
        """Let those in that waited for this request's prompt."""
        if self.leaders.get(request.prompt_ids) is not request:
            return
        del self.leaders[request.prompt_ids]
        ready = [follower for follower in self.followers if follower.prompt_ids == request.prompt_ids]
        self.followers = [follower for follower in self.followers if follower.prompt_ids != request.prompt_ids]
        for follower in ready:
            self._submit(follower)

    def abort(self, request: Request) -> None:
        """Take a request out of vLLM's scheduler."""
        if request in self.followers:
            self.followers.remove(request)
            return
        self._prefilled(request)  # an aborted leader would leave its followers waiting for ever
        keys = [key for key, held in self.requests.items() if held is request]
        self.engine.abort_request(keys)
        for key in keys:
            del self.requests[key]

    def step(self, version: int) -> list[Request]:
        """One step of vLLM; the requests that it ended."""
        finished = []
        for output in self.engine.step():
            request = self.requests.get(output.request_id)
            if request is None:  # aborted in this very step
                continue
            request.start()
            request.cached_tokens = max(request.cached_tokens, output.num_cached_tokens or 0)
            part = output.outputs[0]
            # strict: tokens without log-probs, or with too few, are an error and not a shorter action.
            for token, logprobs in zip(part.token_ids, part.logprobs or (), strict=True):
                request.append(token, logprobs[token].logprob, version)
            self._prefilled(request)
            if output.finished:
                del self.requests[output.request_id]
                finished.append(request)
                self._finish(request, part.finish_reason)
        return finished

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], unfinished: int) -> None:
        """Load new weights into vLLM's model and clear its prefix cache."""
        # Checked while it is read: an error comes when part of the model is new already, so the engine breaks.
        checked = complete(weights, self.expected)
        if self.on_cpu:
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": checked})
            self.engine.apply_model(repack_tied_head)
        else:
            # `and None`: the set of all names would be the answer otherwise.
            self.engine.apply_model(lambda model: model.load_weights(checked) and None)
        # Cached keys and values belong to the old weights, those of running requests too: they are computed anew.
        if not self.engine.reset_prefix_cache(reset_running_requests=unfinished > 0):
            raise RuntimeError("vLLM did not clear its prefix cache: it would mix old keys and values with new weights")

    def forget(self) -> None:
        """A prompt that was seen before would be taken from the cache, and its logits differ in their last bits."""
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not clear its prefix cache: the next batch would depend on the earlier ones")

    def close(self) -> None:
        """End vLLM's engine and give its memory back."""
        self.engine.engine_core.shutdown()
        self.hook.change = None  # vLLM remembers every class of processors; the critic need not live on with it
        self.requests.clear()
        self.followers.clear()
        del self.engine, self.llm

    def _params(self, sampling: Sampling) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,  # 0 is off in vLLM as well
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop_token_ids=list(sampling.stop_token_ids or self.stop_token_ids),
            ignore_eos=True,  # only the tokens named above end an action
            logit_bias=self.biases,  # ids that nobody can decode
            logprobs=0,  # of the sampled token alone
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,  # each output has the new tokens only, which `step` appends
        )

    def _finish(self, request: Request, reason: str | None) -> None:
        if reason in ("stop", "length"):
            request.finish("stop" if reason == "stop" else "length")
        else:
            raise RuntimeError(f"vLLM ended request {request.request_id} with {reason!r}, expected stop or length")


def vllm_importable() -> bool:
    """Whether vLLM is installed; finds out without importing it, which takes 15 s."""
    return importlib.util.find_spec("vllm") is not None


def repack_tied_head(model: Any) -> None:
    """Pack a head that is tied to the embedding from the embedding's new weights (CPU).

    The layer-wise reload gives the embedding its new values, but the head's packed copy keeps the old ones: log-probs
    were off by 0.5 where 3e-5 is right.
    """
    if not (model.config.tie_word_embeddings and hasattr(model, "lm_head")):
        return
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    head = model.lm_head
    tables = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding)]
    # ParallelLMHead is a VocabParallelEmbedding too, so the head itself is among the tables.
    embedding = next((table for table in tables if not isinstance(table, ParallelLMHead)), head)
    head.weight = embedding.weight
    head.quant_method.process_weights_after_loading(head)


def weight_names(folder: Path) -> frozenset[str]:
    """Names of the tensors in a model folder's safetensors files."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())  # the header alone is read
    return frozenset(names)


def complete(weights: Iterable[tuple[str, Tensor]], expected: frozenset[str]) -> Iterator[tuple[str, Tensor]]:
    """Pass weights on; complain after the last one if some did not come. The head may be tied, so it may be left out.

    Raises:
        ValueError: a name is unknown, or one is missing: vLLM alone would go on with what it had.
    """
    seen = set()
    for name, value in weights:
        if name not in expected and name != "lm_head.weight":
            raise ValueError(f"weight {name!r} is not in the model folder; expected Hugging Face names")
        seen.add(name)
        yield name, value.detach()
    missing = sorted(expected - seen - {"lm_head.weight"})
    if missing:
        raise ValueError(f"the update left out {len(missing)} weights, among them {missing[:3]}")


def rank_without_compiling() -> None:
    """vLLM compiles one comparison, the rank of the sampled token, at the first request: 20 s on CPU for nothing."""
    from vllm.v1.sample import sampler

    def count_at_least(rows: Tensor, values: Tensor) -> Tensor:
        return (rows >= values).sum(-1)  # vLLM's own says "greater" and counts the equal ones as well

    sampler.batched_count_greater_than = count_at_least


@contextmanager
def _preload_unchanged() -> Iterator[None]:
    """vLLM adds libraries to LD_PRELOAD, which every later child process (a browser) would load too."""
    before = os.environ.get("LD_PRELOAD")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("LD_PRELOAD", None)
        else:
            os.environ["LD_PRELOAD"] = before
