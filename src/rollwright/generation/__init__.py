"""Engines that sample: one contract, several makers.

Lives here: the contract and its data (`engine`), the section `engine` (`engine_settings`), the engines
(`vllm_engine`, `transformers_engine`, `scripted_engine`, `server/`), the choice among them (`select_engine`,
`open_engine`), the check that engine and learner agree (`parity`), and a client of foreign chat endpoints
(`chat_api`, `answer_cache`).
May import: models and what stands above it.
"""

from rollwright.generation.absent_engine import AbsentEngine
from rollwright.generation.answer_cache import AnswerCache
from rollwright.generation.cache_check import check_cache
from rollwright.generation.chat_api import ChatClient, ChatFailure
from rollwright.generation.engine import (
    AdapterEngine,
    Ask,
    BatchEngine,
    Engine,
    Generation,
    PerturbedEngine,
    ReportingEngine,
    Sampling,
    TimedEngine,
)
from rollwright.generation.engine_settings import ENGINES, EngineSettings
from rollwright.generation.kv_cache import KVRows
from rollwright.generation.open_engine import open_engine
from rollwright.generation.parity import Sampled, check_parity, measure_parity, model_logprobs
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.generation.select_engine import choose_engine, make_engine, takes_batches
from rollwright.generation.threaded_engine import ThreadedEngine
from rollwright.generation.vllm_engine import rank_without_compiling, repack_tied_head, vllm_importable

__all__ = [
    "ENGINES",
    "AbsentEngine",
    "AdapterEngine",
    "AnswerCache",
    "Ask",
    "BatchEngine",
    "ChatClient",
    "ChatFailure",
    "Engine",
    "EngineSettings",
    "Generation",
    "KVRows",
    "PerturbedEngine",
    "ReportingEngine",
    "Sampled",
    "Sampling",
    "ScriptedEngine",
    "ThreadedEngine",
    "TimedEngine",
    "check_cache",
    "check_parity",
    "choose_engine",
    "make_engine",
    "measure_parity",
    "model_logprobs",
    "open_engine",
    "rank_without_compiling",
    "repack_tied_head",
    "takes_batches",
    "vllm_importable",
]
