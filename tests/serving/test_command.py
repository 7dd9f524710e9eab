"""What vLLM is started with."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lensmith.guide import Guide
from lensmith.provenance import ROOT
from serving.api_server import PROGRAM
from serving.command import LIVE_BASE, NO_DOMAIN, engine_argv, engine_environment
from serving.engine_files import EngineFiles
from serving.film_loader import LOADER
from serving.guard import MIDDLEWARE, TOKEN_VARIABLE
from serving.profile import Places
from serving.profile_file import AdapterOptions, Cuda, Profile, Room, Videos, parse_profile

GOLDEN = Path(__file__).parent / "golden"
PLACES = Places(Path("/base"), Path("/run"))


def merged() -> Profile:
    return parse_profile(GOLDEN / "merged_cpu.yaml")


def test_files_that_the_profile_holds_are_read_in_place_of_the_checkpoint_s() -> None:
    plain = engine_argv(merged(), PLACES, 8123, proof=True)
    assert not {"--hf-config-path", "--chat-template"} & set(plain)
    files = EngineFiles(Path("/profile/engine"), Path("/profile/engine/chat_template.jinja"))
    argv = engine_argv(merged(), replace(PLACES, files=files), 8123, proof=True)
    assert argv[argv.index("--hf-config-path") + 1] == "/profile/engine"
    assert argv[argv.index("--chat-template") + 1] == "/profile/engine/chat_template.jinja"


def test_guided_answers_have_one_backend_and_their_own_white_space() -> None:
    assert "--structured-outputs-config" not in options(merged(), proof=False)
    for free in (True, False):
        guide = Guide(answer_schema="{}", any_whitespace=free)
        given = options(merged().model_copy(update={"guided": guide}), proof=True)
        rules = json.loads(given["--structured-outputs-config"])
        assert rules == {"backend": "xgrammar", "disable_any_whitespace": not free}


def options(profile: Profile, *, proof: bool, live: bool = False) -> dict[str, str]:
    argv = engine_argv(profile, PLACES, 8123, proof=proof, live=live)
    assert argv[:3] == [sys.executable, "-P", str(PROGRAM)]
    found: dict[str, str] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            follows = argv[i + 1] if i + 1 < len(argv) and not argv[i + 1].startswith("--") else ""
            found[word] = follows
    return found


def test_media_is_closed_and_images_are_bounded() -> None:
    given = options(merged(), proof=False)
    assert given["--allowed-media-domains"] == NO_DOMAIN
    assert "--allowed-local-media-path" not in given
    assert "--trust-remote-code" not in given
    assert json.loads(given["--limit-mm-per-prompt"]) == {"image": 1, "video": 0}
    size = {"shortest_edge": 4096, "longest_edge": 262144}
    assert json.loads(given["--mm-processor-kwargs"]) == {"size": size}
    for proof in (True, False):
        assert options(merged(), proof=proof)["--middleware"] == MIDDLEWARE
    environment = engine_environment(merged(), {}, proof=False)
    assert environment["PYTHONPATH"] == str(ROOT)
    assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert environment["VLLM_MAX_IMAGE_PIXELS"] == "100000000"
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"


VIDEOS = Videos(per_prompt=2, fps=0.5, max_frames=16, max_pixels=50_000, max_bytes=9_000_000)


@pytest.mark.parametrize(("family", "distinct"), [("qwen3_vl", False), ("glm4v", True)])
def test_videos_are_sampled_as_for_training_and_keep_their_size(family: str, distinct: bool) -> None:
    assert "--media-io-kwargs" not in options(merged(), proof=False)
    profile = merged().model_copy(update={"videos": VIDEOS, "family": family})
    for proof in (True, False):
        given = options(profile, proof=proof)
        assert json.loads(given["--limit-mm-per-prompt"]) == {"image": 1, "video": 2}
        assert json.loads(given["--media-io-kwargs"]) == {
            "video": {
                "video_backend": LOADER,
                "num_frames": 0,
                "fps": 0.5,
                "max_frames": 16,
                "max_pixels": 50_000,
                "max_bytes": 9_000_000,
                "max_decoded_pixels": 100_000_000,
                "distinct": distinct,
            }
        }
        settings = json.loads(given["--mm-processor-kwargs"])
        assert settings["images_kwargs"] == {"size": {"shortest_edge": 4096, "longest_edge": 262144}}
        assert "size" not in settings.get("videos_kwargs", {})


def test_caches_are_on_in_production_and_off_for_proofs() -> None:
    production, proof = options(merged(), proof=False), options(merged(), proof=True)
    assert "--enable-prefix-caching" in production
    assert production["--mm-processor-cache-gb"] == "1.0"
    assert "--no-enable-prefix-caching" in proof
    assert proof["--mm-processor-cache-gb"] == "0"
    caches = {"--enable-prefix-caching", "--no-enable-prefix-caching", "--mm-processor-cache-gb"}
    assert {k: v for k, v in production.items() if k not in caches} == {
        k: v for k, v in proof.items() if k not in caches
    }


def test_decoding_is_what_was_evaluated_not_what_the_checkpoint_suggests() -> None:
    given = options(merged(), proof=False)
    assert given["--generation-config"] == "vllm"
    assert json.loads(given["--override-generation-config"]) == {"temperature": 0.0, "max_new_tokens": 16}


def test_a_proof_never_listens_beyond_this_machine() -> None:
    profile = merged().model_copy(update={"host": "0.0.0.0"})
    assert options(profile, proof=True)["--host"] == "127.0.0.1"
    assert options(profile, proof=False)["--host"] == "0.0.0.0"


def test_an_adapter_stands_under_the_served_name_beside_its_base() -> None:
    adapter = AdapterOptions(max_rank=16, towers=["vision"], tower_connector=True)
    given = options(merged().model_copy(update={"adapter": adapter}), proof=False)
    assert given["--served-model-name"] == "bank-forms-base"
    assert json.loads(given["--lora-modules"])["name"] == "bank-forms"
    assert json.loads(given["--lora-modules"])["path"] == "/run"
    assert given["--max-lora-rank"] == "16"
    assert "--enable-tower-connector-lora" in given
    plain = adapter.model_copy(update={"tower_connector": False})
    assert "--enable-tower-connector-lora" not in options(
        merged().model_copy(update={"adapter": plain}), proof=False
    )


def live() -> Profile:
    room = Room(max_adapters=5, at_once=2)
    adapter = AdapterOptions(max_rank=16, towers=["language"], tower_connector=False, room=room)
    return merged().model_copy(update={"mode": "adapter", "adapter": adapter})


def test_a_live_engine_starts_with_the_base_alone_and_a_guard() -> None:
    given = options(live(), proof=False, live=True)
    assert given["--served-model-name"] == LIVE_BASE
    assert "--lora-modules" not in given
    assert given["--middleware"] == MIDDLEWARE
    assert (given["--max-loras"], given["--max-cpu-loras"], given["--max-lora-rank"]) == ("2", "5", "16")
    environment = engine_environment(live(), {"PYTHONPATH": "/mine"}, proof=False, token="t")
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert environment[TOKEN_VARIABLE] == "t"
    assert environment["PYTHONPATH"].endswith(":/mine")
    shell = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in engine_environment(live(), shell, proof=True)


@pytest.mark.parametrize("proof", [True, False])
def test_measured_alone_a_live_profile_has_its_room_and_one_adapter_that_stays(proof: bool) -> None:
    given = options(live(), proof=proof)
    assert json.loads(given["--lora-modules"])["name"] == "bank-forms"
    assert given["--middleware"] == MIDDLEWARE
    assert (given["--max-loras"], given["--max-cpu-loras"], given["--max-lora-rank"]) == ("2", "5", "16")


def test_cpu_and_gpu_engines() -> None:
    cpu = options(merged(), proof=False)
    assert cpu["--kv-cache-memory-bytes"] == str(1 << 28)
    assert "--enforce-eager" in cpu
    cuda = Cuda(memory_utilization=0.8, tensor_parallel=2)
    given = options(merged().model_copy(update={"cpu": None, "cuda": cuda}), proof=False)
    assert given["--gpu-memory-utilization"] == "0.8"
    assert given["--tensor-parallel-size"] == "2"
    assert "--enforce-eager" not in given


def test_vllm_settings_of_the_shell_do_not_reach_the_engine() -> None:
    shell = {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "9", "VLLM_API_KEY": "k", "VLLM_CACHE_ROOT": "/c"}
    environment = engine_environment(merged(), shell, proof=False)
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment
    assert environment["VLLM_API_KEY"] == "k"
    assert environment["VLLM_CACHE_ROOT"] == "/c"
    assert environment["PATH"] == "/bin"
    assert "VLLM_API_KEY" not in engine_environment(merged(), shell, proof=True)
