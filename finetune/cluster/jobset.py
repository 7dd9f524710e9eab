"""The manifest for Kubernetes: a JobSet (jobset.x-k8s.io/v1alpha2), of JobSet 0.10 or later.

A JobSet and not a PyTorchJob: Kubeflow's training operator v1, whose kind that is, is its legacy, and its
successor (Trainer v2) itself starts JobSets. A JobSet starts all nodes anew when one fails, as torchrun's
static rendezvous needs it, and tells wrong input, which no restart mends, from a node that was taken away:
by the message that the Job's pod failure policy leaves (pkg/controller/job/pod_failure_policy.go of
Kubernetes).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from finetune.cluster.job import PORT, Job
from finetune.cluster.node import node_program
from finetune.cluster.seal import SEAL

API = "jobset.x-k8s.io/v1alpha2"
CONTAINER = "train"
# Exit codes of Lensmith that the same start would have again: wrong input, an integrity check.
FINAL_CODES = (2, 4)
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# Labels that JobSet gives every pod (pkg/controllers/jobset_controller.go): which JobSet, which try of it.
_UID = "metadata.labels['jobset.sigs.k8s.io/jobset-uid']"
_RESTART = "metadata.labels['jobset.sigs.k8s.io/restart-attempt']"


class _Dumper(yaml.SafeDumper):
    """Plain YAML: texts of several lines as blocks, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def jobset_manifest(job: Job) -> str:
    """The manifest, for `kubectl apply -f`."""
    nodes = "one pod" if job.nodes == 1 else f"{job.nodes} pods"
    header = [
        f"# Trains {job.recipe}: {nodes}, {job.gpus} GPUs each.",
        SEAL,
        f"#   kubectl apply -f {job.name}.jobset.yaml      # JobSet 0.10 or later must be installed",
        f"#   kubectl logs -f -l jobset.sigs.k8s.io/jobset-name={job.name}",
        "# All pods must be able to write to the volumes at once (ReadWriteMany). The home is prepared",
        "# before (lensmith prepare), at the same path and by the image that trains.",
    ]
    body = yaml.dump(
        manifest(job), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20, indent=2
    )
    return "\n".join(header) + "\n" + body


def manifest(job: Job) -> dict[str, Any]:
    """The JobSet as Kubernetes reads it."""
    metadata: dict[str, Any] = {"name": job.name, "labels": {"app.kubernetes.io/managed-by": "lensmith"}}
    if job.queue:
        metadata["labels"][_QUEUE_LABEL] = job.queue
    return {
        "apiVersion": API,
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": job.restarts,
                "rules": [
                    {
                        "name": "wrongInput",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                        "onJobFailureMessagePatterns": ["failed with exit code"],
                    },
                    {
                        "name": "takenAway",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                        "onJobFailureMessagePatterns": ["has condition DisruptionTarget"],
                    },
                ],
            },
            "replicatedJobs": [{"name": "node", "replicas": 1, "template": {"spec": _job_of_pods(job)}}],
        },
    }


def _job_of_pods(job: Job) -> dict[str, Any]:
    codes = {"containerName": CONTAINER, "operator": "In", "values": list(FINAL_CODES)}
    return {
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        # A pod alone cannot join the others again: JobSet starts all anew.
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": codes},
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"spec": _pod(job)},
    }


def _pod(job: Job) -> dict[str, Any]:
    volumes = [
        {"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": each.claim}}
        for number, each in enumerate(job.volumes)
    ]
    shm = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{job.shm}Gi"}}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace,
        "volumes": [*volumes, shm],
        "containers": [_container(job)],
    }


def _container(job: Job) -> dict[str, Any]:
    place = [
        'rank="${JOB_COMPLETION_INDEX:?}" attempt="${JOBSET_UID:?}.${JOBSET_RESTART:?}"',
        f"head={job.name}-node-0-0.{job.name} port={job.launcher.port or PORT}",
    ]
    limits: dict[str, Any] = {"memory": f"{job.memory}Gi"} if job.memory else {}
    limits |= {"nvidia.com/gpu": job.gpus} if job.gpus else {}
    limits |= {job.rdma: 1} if job.rdma else {}
    mounts = [{"name": f"volume-{n}", "mountPath": str(each.path)} for n, each in enumerate(job.volumes)]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": job.image,
        "command": ["bash", "-c"],
        "args": [unexpanded(node_program(job, place, log=True))],
        "env": _env(job),
        "resources": {
            # CPUs are asked for and not limited: a process that waits for its quota stops all others.
            "requests": {"cpu": job.cpus, **({"memory": limits["memory"]} if job.memory else {})},
            **({"limits": limits} if limits else {}),
        },
        "volumeMounts": [*mounts, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    if job.rdma:
        # Memory that the adapter reaches is locked (the device plugins' own examples ask for it).
        container["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}
    return container


def _env(job: Job) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [
        {"name": "JOBSET_UID", "valueFrom": {"fieldRef": {"fieldPath": _UID}}},
        {"name": "JOBSET_RESTART", "valueFrom": {"fieldRef": {"fieldPath": _RESTART}}},
    ]
    if job.secret:
        key = {"name": job.secret, "key": "WANDB_API_KEY"}
        env.append({"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": key}})
    return env


def unexpanded(text: str) -> str:
    """`text` as a container's argument that stays as it is.

    Kubernetes puts variables in for $(NAME) and takes $$ for one dollar sign (Container.args of its API).
    """
    return re.sub(r"\$(?=[$(])", "$$", text)
