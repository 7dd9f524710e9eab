"""The model card: what people read before they use a release. Its front matter is what model hubs expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from lensmith.artifact import Artifact
from lensmith.families.family import TOWERS, Tower
from lensmith.report import LOWER_IS_BETTER, METRICS, TITLES, Difference, MetricName, Score
from lensmith.train_settings import DPO_BETA, LORA_VARIANTS, Lora, Quantization, TowerLora, TowerRates
from serving.merged_in import merged_in, other_licences
from serving.release_file import RELEASE_FILE, Proof, Release

PROOFS = {
    "merge-proof": "the merged weights are the base plus the trained adapter",
    "serve-proof": "vLLM answers as the trained model does",
}
_METHODS = {"lora": "LoRA", "qlora": "LoRA on the base in 4 bits (QLoRA)", "full": "full fine-tune"}


def model_card(
    release: Release,
    *,
    base_name: str,
    base: Artifact,
    run: Artifact,
    model: Artifact,
    others: Sequence[Artifact],
    dataset: Artifact,
    intake: Artifact,
    profile: Artifact,
) -> str:
    """The card as Markdown. base_name: the checkpoint's name as people know it, never a place on a disk.
    model: what is served. others: the adapters that were merged with the run's.
    """
    parts = [
        _front_matter(release, base_name, others),
        f"# {release.name}",
        release.intended_use,
        _origin(release, base_name, base, run, others),
        *([merged_in(run, others, model.body["combination"], release.licence)] if others else []),
        _training(run),
        _data(dataset, intake),
        _evaluation(release),
        _proofs(release.proofs),
        _serving(release, profile),
        _limits(release),
        _identity(release, others),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(release: Release, base_name: str, others: Sequence[Artifact]) -> str:
    results = [
        {
            "task": {"type": "image-text-to-text"},
            "dataset": {"name": f"held-out set {release.exam.held_out[:12]}", "type": "private"},
            "metrics": [
                {"type": name, "name": TITLES[name], "value": score.value}
                for name, score in _ordered(release.exam.scores)
            ],
        }
    ]
    # Hubs write licences in small letters: Apache-2.0 is apache-2.0 there. Several together are "other".
    licences = [release.licence.lower(), *other_licences(others, release.licence)]
    stated = {"license": licences[0]}
    if len(licences) > 1:
        stated = {"license": "other", "license_name": " and ".join(licences)}
    content = {
        **stated,
        "base_model": base_name,
        "base_model_relation": "finetune" if release.mode == "merged" else "adapter",
        "pipeline_tag": "image-text-to-text",
        "library_name": "transformers" if release.mode == "merged" else "peft",
        "tags": [release.family, "vllm", "lensmith"],
        "model-index": [{"name": release.name, "results": results}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _origin(
    release: Release, base_name: str, base: Artifact, run: Artifact, others: Sequence[Artifact]
) -> str:
    revision = f" at revision `{base.body['revision']}`" if base.body["revision"] else ""
    more = f", together with {len(others)} more" if others else ""
    licences = other_licences(others, release.licence)
    also = f"; of what was merged in: {', '.join(licences)}. All of them hold" if licences else ""
    served = (
        f"The adapter is merged into the base's weights{more}."
        if release.mode == "merged"
        else "The adapter is served beside its base."
    )
    return (
        "## What it is\n\n"
        f"Fine-tuned from {base_name}{revision}: {_METHODS[run.body['method']]}. {served}\n\n"
        f"Licence: {release.licence}, the base's{also}."
    )


def _training(run: Artifact) -> str:
    body, asked = run.body, run.body["asked"]["train"]
    length = f"max_steps {asked['max_steps']:,}" if asked["max_steps"] else f"epochs {asked['epochs']:g}"
    # Runs from before towers could differ state nothing of it.
    rates = TowerRates.model_validate(asked.get("tower_learning_rates", {}))
    other = [f"{tower} {rates.of(tower):g}" for tower in TOWERS if rates.of(tower)]
    method = _METHODS[body["method"]]
    if body["method"] != "full":
        method = _adapter(Lora.model_validate(asked["lora"]))
    if body["method"] == "qlora":
        held = Quantization.model_validate(asked["quantization"])
        method += f", on the language model in 4 bits ({held.type}{', double' if held.double else ''})"
    objective = {}
    if asked.get("objective") == "dpo":
        objective = {
            "objective": f"answers preferred to rejected ones (DPO, beta {asked['beta'] or DPO_BETA:g})"
        }
    rows = {
        **objective,
        "method": method,
        "towers": ", ".join(f"{tower}: {body['towers'][tower]}" for tower in TOWERS),
        "trained parameters": f"{sum(body['trained_parameters'].values()):,}",
        "learning rate": ", ".join([f"{asked['learning_rate']:g}", *other]),
        "schedule": f"{asked['schedule']}, {100 * asked['warmup']:g}% of the steps warm up",
        "weight decay": f"{asked['weight_decay']:g}",
        "steps": f"{body['steps']:,} ({length})",
        "global batch": f"{body['global_batch']:,} rows",
        "dtype": asked["dtype"],
        "seed": str(body["seed"]),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## How it was trained\n\n| setting | value |\n|---|---|\n{table}"


def _adapter(lora: Lora) -> str:
    told = f"{LORA_VARIANTS[lora.variant]}, rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}"
    other: list[Tower] = [tower for tower in TOWERS if lora.towers.of(tower) != TowerLora()]
    return "; ".join(
        [told, *(f"{each}: rank {lora.rank_of(each)}, alpha {lora.alpha_of(each):g}" for each in other)]
    )


def _data(dataset: Artifact, intake: Artifact) -> str:
    body = dataset.body
    rows = [
        f"| {split.replace('_', '-')} | {body['rows'][split]:,} | {body['groups'][split]:,} |"
        for split in ("train", "validation", "held_out")
    ]
    sources = [f"{each['file']} (SHA-256 `{each['sha256'][:12]}`)" for each in intake.body["sources"]]
    return "\n".join(
        [
            "## Data",
            "",
            f"From {', '.join(sources)}; {intake.body['refused']['rows']:,} rows were refused. No group and"
            " no image is in two splits.",
            "",
            "| split | rows | groups |",
            "|---|--:|--:|",
            *rows,
        ]
    )


def _evaluation(release: Release) -> str:
    exam = release.exam
    percent = f"{100 * exam.confidence:g}%"
    compared = exam.baseline is not None
    what = "its base" if exam.baseline == release.base else "the model it replaces"
    lines = [
        "## Evaluation",
        "",
        f"As served, on {exam.rows:,} held-out rows of {exam.groups:,} groups; {percent} intervals from a"
        " bootstrap over groups" + (f", on the same draws for {what}." if compared else "."),
        "",
        "| metric | this release |" + (f" {what} | difference |" if compared else ""),
        "|---|--:|" + ("--:|--:|" if compared else ""),
    ]
    for name, score in _ordered(exam.scores):
        title = TITLES[name] + (" (lower is better)" if name in LOWER_IS_BETTER else "")
        line = f"| {title} | {_score(score)} |"
        if compared:
            line += f" {_score(exam.baseline_scores[name])} | {_difference(exam.differences[name])} |"
        lines.append(line)
    lines += ["", "Every mistake beside its picture: [report/page.html](report/page.html)."]
    return "\n".join(lines)


def _proofs(proofs: list[Proof]) -> str:
    lines = ["## Proofs"]
    for proof in proofs:
        verdict = "passed" if proof.passed else "FAILED"
        lines += ["", f"**{proof.predicate}** {verdict}: {PROOFS[proof.predicate]}.", ""]
        lines += [f"- {name}: {_told(value)}" for name, value in _facts(proof.facts)]
    return "\n".join([*lines, "", f"All digits are in [{RELEASE_FILE}]({RELEASE_FILE})."])


def _told(value: Any) -> str:
    """A number as people read it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _facts(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every number and text of a proof's statement, by dotted name; lists are counted."""
    found: list[tuple[str, Any]] = []
    for name, value in sorted(facts.items()):
        dotted = f"{prefix}{name}"
        if isinstance(value, dict):
            found += _facts(value, f"{dotted}.")
        elif isinstance(value, list):
            found.append((dotted, len(value)))
        elif value is not None:
            found.append((dotted, value))
    return found


def _serving(release: Release, profile: Artifact) -> str:
    name, port = profile.body["served_name"], profile.body["port"]
    return f"""## How to serve it

```
lensmith serve {release.name}@production
```

starts vLLM as [profile/profile.yaml](profile/profile.yaml) says. Ask it as it was trained, the image first:

```
curl http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' -d '{{
  "model": "{name}",
  "messages": [{{"role": "user", "content": [
    {{"type": "image_url", "image_url": {{"url": "data:image/png;base64,..."}}}},
    {{"type": "text", "text": "..."}}]}}]}}'
```"""


def _limits(release: Release) -> str:
    own = f"{release.limitations}\n\n" if release.limitations else ""
    return (
        f"## Limits\n\n{own}The figures hold for images and questions like the held-out rows; nothing was"
        " measured on others. The model states no confidence: have a person check what must not be wrong."
    )


def _identity(release: Release, others: Sequence[Artifact]) -> str:
    ids = {
        "weights": release.subject,
        "base": release.base,
        "fine-tune": release.run,
        **{f"merged in, {number}": each.id for number, each in enumerate(others, 1)},
        "dataset": release.dataset,
        "held-out set": release.exam.held_out,
        "profile": release.profile,
        "report": release.exam.report,
    }
    rows = "\n".join(f"| {role} | `{value}` |" for role, value in ids.items())
    return (
        "## Identity\n\n"
        "`lensmith verify` re-hashes this release and all that it was made from; [lineage.json](lineage.json)"
        f" lists it.\n\n| | id |\n|---|---|\n{rows}"
    )


def _ordered(scores: dict[MetricName, Score]) -> list[tuple[MetricName, Score]]:
    """In the order people read them; a manifest sorts its keys."""
    return [(name, scores[name]) for name in METRICS if name in scores]


def _score(score: Score) -> str:
    if score.interval is None:
        return f"{score.value:.3f} (undecidable)"
    return f"{score.value:.3f} ({score.interval.lower:.3f} to {score.interval.upper:.3f})"


def _difference(difference: Difference) -> str:
    if difference.interval is None:
        return f"{difference.value:+.3f} (undecidable)"
    lower, upper = difference.interval.lower, difference.interval.upper
    return f"{difference.value:+.3f} ({lower:+.3f} to {upper:+.3f})"
