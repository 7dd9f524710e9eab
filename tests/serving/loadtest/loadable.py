"""Releases whose profile is a real one, so that they can be put under load."""

from __future__ import annotations

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation, Predicate, attest
from lensmith.files import digest_json
from serving.build import EngineBuild, installed_engine
from serving.profile_file import Caches, Cpu, Images, Profile, write_profile
from tests.release_artifacts import World


class Loadable(World):
    """As World; what its profiles serve are no weights that an engine could load."""

    build: EngineBuild = installed_engine()
    threads = 1

    def proof(self, predicate: Predicate, subject: Artifact, *, passed: bool = True) -> Attestation:
        if predicate != "serve-proof":
            return super().proof(predicate, subject, passed=passed)
        evidence = {"base": self.base.id, "profile": self.profile(subject).id}
        statement = {"key": "k" * 64, "findings": [], "engine_version": self.build.version}
        return attest(self.home, predicate, subject.id, passed, evidence, statement)

    def profile(self, subject: Artifact) -> Artifact:
        content = Profile(
            family="qwen3_vl",
            mode="merged",
            subject=subject.id,
            base=self.base.id,
            served_name="bank-forms",
            host="0.0.0.0",
            port=8000,
            engine=self.build,
            dtype="float32",
            max_model_len=512,
            max_new_tokens=16,
            seed=0,
            decoding={"temperature": 0.0},
            images=Images(per_prompt=1, max_decoded_pixels=1_000_000),
            caches=Caches(prefix=True, processor_gib=1.0),
            cpu=Cpu(threads=self.threads, kv_cache_gib=0.25),
        )
        key = digest_json(["profile", subject.id, content.model_dump(mode="json")])
        with self.home.create("profile", key, {"subject": subject, "base": self.base}) as draft:
            write_profile(draft.path, content)
            draft.body.update(content.model_dump(mode="json"))
        return draft.artifact
