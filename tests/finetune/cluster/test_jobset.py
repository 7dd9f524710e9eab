"""The manifest against what JobSet 0.12 and Kubernetes say of their kinds.

Facts from config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml and pkg/webhooks/jobset_webhook.go of
JobSet v0.12.0, and from pkg/controller/job/pod_failure_policy.go and the API of batch/v1 of Kubernetes.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cluster.job import Job, Volume
from finetune.cluster.jobset import jobset_manifest, unexpanded
from tests.finetune.cluster.jobs import HOSTILE, job
from tests.finetune.cluster.test_golden import GOLDEN

# What the kinds have that we write, or None for a value; every other key is a slip of ours.
_NAMES: dict[str, Any] = {"name": None}
_CONTAINER: dict[str, Any] = {
    **_NAMES,
    **dict.fromkeys(("image", "command", "args")),
    "env": [
        {
            "name": None,
            "valueFrom": {"fieldRef": {"fieldPath": None}, "secretKeyRef": {"name": None, "key": None}},
        }
    ],
    "resources": {"requests": {}, "limits": {}},
    "volumeMounts": [{"name": None, "mountPath": None}],
    "securityContext": {"capabilities": {"add": None}},
}
_POD: dict[str, Any] = {
    "restartPolicy": None,
    "terminationGracePeriodSeconds": None,
    "volumes": [
        {
            "name": None,
            "persistentVolumeClaim": {"claimName": None},
            "emptyDir": {"medium": None, "sizeLimit": None},
        }
    ],
    "containers": [_CONTAINER],
}
_JOB: dict[str, Any] = {
    **dict.fromkeys(("completionMode", "completions", "parallelism", "backoffLimit")),
    "podFailurePolicy": {
        "rules": [
            {
                "action": None,
                "onExitCodes": dict.fromkeys(("containerName", "operator", "values")),
                "onPodConditions": [{"type": None, "status": None}],
            }
        ]
    },
    "template": {"spec": _POD},
}
_JOBSET: dict[str, Any] = {
    "apiVersion": None,
    "kind": None,
    "metadata": {"name": None, "labels": {}},
    "spec": {
        "network": {"enableDNSHostnames": None, "publishNotReadyAddresses": None},
        "failurePolicy": {
            "maxRestarts": None,
            "rules": [
                dict.fromkeys(("name", "action", "onJobFailureReasons", "onJobFailureMessagePatterns"))
            ],
        },
        "replicatedJobs": [{"name": None, "replicas": None, "template": {"spec": _JOB}}],
    },
}


def slips(found: Any, known: Any, where: str = "") -> list[str]:
    """Keys of `found` that the kind does not have."""
    if isinstance(known, list):
        return [slip for each in found for slip in slips(each, known[0], where)]
    if not known:
        return []
    return [
        slip
        for key, value in found.items()
        for slip in (slips(value, known[key], f"{where}.{key}") if key in known else [f"{where}.{key}"])
    ]


def read(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


def pods(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    return pods(manifest)["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("name", ["one_pod.jobset.yaml", "four_pods.jobset.yaml"])
def test_the_kinds(name: str) -> None:
    manifest = read((GOLDEN / name).read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert slips(manifest, _JOBSET) == []
    # batch/v1: a pod failure policy asks for it.
    assert pods(manifest)["template"]["spec"]["restartPolicy"] == "Never"
    assert pods(manifest)["completions"] == pods(manifest)["parallelism"]
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
        assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    volumes = {each["name"] for each in pods(manifest)["template"]["spec"]["volumes"]}
    assert {each["name"] for each in container(manifest)["volumeMounts"]} == volumes


def test_a_slip_is_seen() -> None:
    manifest = read((GOLDEN / "one_pod.jobset.yaml").read_text())
    manifest["spec"]["failurePolicy"]["maxRestart"] = 1
    container(manifest)["env"][0]["valueFrom"]["fieldref"] = {}
    assert slips(manifest, _JOBSET) == [
        ".spec.failurePolicy.maxRestart",
        ".spec.replicatedJobs.template.spec.template.spec.containers.env.valueFrom.fieldref",
    ]


def decision(manifest: dict[str, Any], code: int, disrupted: bool) -> str:
    """What the controllers do with the JobSet after a pod ended with `code`."""
    for index, rule in enumerate(pods(manifest)["podFailurePolicy"]["rules"]):
        if "onExitCodes" in rule and code in rule["onExitCodes"]["values"]:
            message = (
                f"Container train for pod d/p failed with exit code {code} matching FailJob rule at {index}"
            )
            break
        if "onPodConditions" in rule and disrupted:
            message = f"Pod d/p has condition DisruptionTarget matching FailJob rule at index {index}"
            break
    else:
        assert pods(manifest)["backoffLimit"] == 0
        # No rule is for BackoffLimitExceeded: the default.
        return "RestartJobSet"
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
        if any(re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"]):
            return rule["action"]
    return "RestartJobSet"


def test_what_follows_an_end() -> None:
    manifest = read(jobset_manifest(job("k8s", nodes=2)))
    assert decision(manifest, 2, disrupted=False) == "FailJobSet"
    assert decision(manifest, 4, disrupted=True) == "FailJobSet"
    assert decision(manifest, 130, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    assert decision(manifest, 137, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    assert decision(manifest, 1, disrupted=False) == "RestartJobSet"
    assert decision(manifest, 137, disrupted=False) == "RestartJobSet"


def test_all_find_the_first_pod() -> None:
    manifest = read(jobset_manifest(job("k8s", nodes=2, name="forms")))
    # <jobset>-<replicated job>-<job index>-<pod index>.<subdomain, the jobset's name where absent>
    assert "head=forms-node-0-0.forms " in container(manifest)["args"][0]
    assert manifest["spec"]["replicatedJobs"][0]["name"] == "node"
    assert "subdomain" not in manifest["spec"]["network"]


def test_no_secret_is_written() -> None:
    text = jobset_manifest(job("k8s", online=True, secret="wandb"))
    key = [each for each in container(read(text))["env"] if each["name"] == "WANDB_API_KEY"]
    assert key == [
        {
            "name": "WANDB_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "WANDB_API_KEY"}},
        }
    ]
    assert "WANDB" not in jobset_manifest(job("k8s"))


def expanded(text: str, environment: dict[str, str]) -> str:
    """What Kubernetes makes of an argument (third_party/forked/golang/expansion)."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


@pytest.mark.parametrize("text", ["$(HOME)", "$$(HOME)", "$$$", "a$", "$x $$ $(", "${HOME} $(date)", HOSTILE])
def test_kubernetes_changes_nothing_in_an_argument(text: str) -> None:
    assert expanded(unexpanded(text), {"HOME": "pwned", "date": "pwned"}) == text


def test_kubernetes_would_change_it() -> None:
    assert expanded("$(HOME) $$", {"HOME": "pwned"}) == "pwned $"


def hostile() -> Job:
    place = Path("/shared") / HOSTILE.replace("/", "-")
    return job(
        "k8s",
        nodes=2,
        recipe=place / "recipe.yaml",
        home=place,
        config=place / "config.yaml",
        settings=(f"release.intended_use={HOSTILE}",),
        python=str(place / "python"),
        volumes=(Volume("all", place),),
        queue="123",
    )


def test_hostile_values_stay_values(tmp_path: Path) -> None:
    manifest = read(jobset_manifest(hostile()))
    assert slips(manifest, _JOBSET) == []
    assert container(manifest)["volumeMounts"][0]["mountPath"] == str(hostile().home)
    # A label's value is text, whatever it looks like.
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "123"
    program = expanded(container(manifest)["args"][0], {"HOME": "pwned"})
    environment = {
        "JOB_COMPLETION_INDEX": "1",
        "JOBSET_UID": "u",
        "JOBSET_RESTART": "0",
        "PATH": "/bin:/usr/bin",
    }
    done = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"no Lensmith home at {hostile().home}" in done.stderr
    assert list(tmp_path.iterdir()) == []
