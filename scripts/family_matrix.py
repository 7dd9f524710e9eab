"""docs/reference/families.md: what each family's file states, and what tests have shown of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lensmith.families import FAMILIES
from lensmith.families.family import TOWERS, Decoding, Family

RESULTS = Path(__file__).resolve().parent.parent / "docs/reference/families.json"
# What a cell of the matrix may show, by whole model and by tower.
WHOLE = {
    "load": "loads from the published layout",
    "rows": "rows, labels and image tokens as its processor",
    "train": "labelled forms become a run",
    "batch": "rows in a batch as each alone",
    "packed": "rows packed as each alone",
    "resume": "stopped and resumed, the same run in every byte",
    "evaluate": "its answers judged, in training and after",
    "dpo": "preferences (DPO)",
    "qlora": "QLoRA, 4 bits",
    "new tokens": "new tokens",
    "experts": "LoRA and merge proof, routed experts",
    "video": "videos as its class sees them, a step beside images and text",
    "zero3": "ZeRO-3, an image on one process alone",
    "fsdp2": "FSDP2, an image on one process alone",
    "merge": "merge proof, LoRA",
    "merge dora": "merge proof, DoRA",
    "merge full": "merge proof, full",
    "serve text": "serve proof, text",
    "serve image": "serve proof, images",
    "serve video": "serve proof, videos",
}
BY_TOWER = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "full": "full",
    "whole": "whole beside LoRA, merged to be served",
    "merge": "merge proof, LoRA",
    "serve adapter": "serve proof, adapter",
}
UNTESTED = "untested"
# Of a cell whose tests show that it does not hold, and that this is found: "serve image refused". What a
# recipe may not ask for says why instead.
REFUSED = "no, the proof names it"


@dataclass(frozen=True)
class Shown:
    """A cell: how its tests ended, when, with which versions; of what is refused, what a user is told."""

    outcome: str
    date: str
    versions: tuple[tuple[str, str], ...]
    why: str = ""

    @property
    def stamp(self) -> str:
        """Date and versions in words."""
        return f"{self.date}: " + ", ".join(f"{name} {number}" for name, number in self.versions)


Cells = Mapping[tuple[str, str, str], Shown]
_WORDS = {"passed": "yes", "failed": "FAILED", "skipped": UNTESTED}


def read_cells(path: Path = RESULTS) -> Cells:
    """The committed results by (family, tower, what)."""
    return {
        (each["family"], each["tower"], each["what"]): Shown(
            each["outcome"], each["date"], tuple(sorted(each["versions"].items())), each.get("why", "")
        )
        for each in json.loads(path.read_bytes())["cells"]
    }


def families_reference(cells: Cells | None = None) -> str:
    """The page. A cell that no committed result fills says "untested"."""
    shown = read_cells() if cells is None else cells
    stamps = sorted({each.stamp for each in shown.values()})
    lines = [
        "# Families",
        "",
        "Written by `scripts/write_reference.py` from `lensmith/families/` and from `families.json`, which",
        "`make families` writes. A cell says yes where its tests passed; the number names the run.",
        "How a family is added: [families](../families.md).",
        "",
        "## What was shown",
        "",
        "On tiny checkpoints of the real classes, float32 on a CPU.",
        "",
        _row(["shown", *(family.title for family in FAMILIES.values())]),
        _row(["---"] * (len(FAMILIES) + 1)),
    ]
    for what, words in WHOLE.items():
        cells_of = [
            "none" if what in _without(family) else _cell(shown, stamps, family.name, "", what)
            for family in FAMILIES.values()
        ]
        lines.append(_row([words, *cells_of]))
    lines += ["", _row(["family", "tower", *BY_TOWER.values()]), _row(["---"] * (len(BY_TOWER) + 2))]
    for family in FAMILIES.values():
        for tower in TOWERS:
            cells_of = [
                _cell(shown, stamps, family.name, tower, what)
                if what in ("full", "whole") or family.adaptable(tower)
                else "no linear layer"
                for what in BY_TOWER
            ]
            lines.append(_row([family.title, tower, *cells_of]))
    lines += ["", *(f"{number}. {stamp}" for number, stamp in enumerate(stamps, start=1)), ""]
    lines += ["## What each states", ""]
    for family in FAMILIES.values():
        lines += [*_facts(family), ""]
    return "\n".join(lines).rstrip() + "\n"


def _without(family: Family) -> set[str]:
    """What there is nothing of in the family that could be tested."""
    parts = {"experts": family.experts, "video": family.video, "serve video": family.video}
    return {what for what, part in parts.items() if part is None}


def _cell(cells: Cells, stamps: list[str], family: str, tower: str, what: str) -> str:
    found = cells.get((family, tower, what))
    refused = cells.get((family, tower, f"{what} refused"))
    if found is None and refused is not None:
        said = f"refused: {refused.why}" if refused.why else REFUSED
        word = said if refused.outcome == "passed" else _WORDS[refused.outcome]
        return f"{word} ({stamps.index(refused.stamp) + 1})"
    if found is None:
        return UNTESTED
    return f"{_WORDS[found.outcome]} ({stamps.index(found.stamp) + 1})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _facts(family: Family) -> list[str]:
    options = [(tower, family.vllm_adapts[tower]) for tower in TOWERS if tower in family.vllm_adapts]
    adapts = [f"{tower}{f' with {option}' if option else ''}" for tower, option in options]
    experts = "none"
    if family.experts is not None:
        experts = (
            f"routed, on disk {family.experts.stored}; LoRA by `train.lora.experts`, routers stay frozen"
        )
    thinks, calls = family.speech.thinking is not None, family.speech.call is not None
    return [
        f"### {family.title}",
        "",
        f"`family: {family.name}`, transformers' `{family.architecture}`, licence {family.licence},"
        f" context {family.context:,} tokens.",
        "",
        f"- Experts: {experts}.",
        f"- Thoughts: {'yes' if thinks else 'no'}; tools: {'yes' if calls else 'no'};"
        f" system message: {'yes' if family.speech.system else 'no'}.",
        f"- Places: {family.coordinates.syntax}, {', '.join(family.coordinates.kinds)}.",
        f"- Images: {family.cut}{'' if family.cut == 'area' else ', no pixel budget'}.",
        f"- Packing: {_packing(family)}.",
        f"- Video: {_video(family)}.",
        f"- Sampling that its card recommends: {_decoding(family.decoding)}.",
        f"- vLLM: `{family.vllm_architecture}`; adapters: {', '.join(adapts) or 'none'}.",
        f"- vLLM, parsers: {_parsers(family)}; several GPUs: {_shares(family)}.",
        *(
            f"- vLLM, adapters, built for {device}: {what}."
            for device, what in family.vllm_no_adapters.items()
        ),
        *(f"- vLLM, images, built for {device}: {what}." for device, what in family.vllm_images.items()),
        *(f"- vLLM: {limit}" for limit in family.vllm_limits),
    ]


def _parsers(family: Family) -> str:
    names = {"calls": family.vllm_offers.tool_parser, "thoughts": family.vllm_offers.reasoning_parser}
    return ", ".join(f"{what} `{name}`" for what, name in names.items() if name) or "none"


def _shares(family: Family) -> str:
    offers = family.vllm_offers
    tower = "whole on each" if offers.encoder_data else "cut" if offers.vision_heads else "the same on each"
    parts = [f"the vision tower {tower}"]
    if offers.experts:
        parts.append(f"whole experts on each {'by default' if offers.experts == 'on' else 'where asked for'}")
    return ", ".join(parts)


def _packing(family: Family) -> str:
    if family.packs is None:
        return "refused, not proven"
    kept = {"rope": "positions in time, height and width", "count": "positions"}[family.packs.positions]
    seeing = {
        "": "",
        "image": "; an image's tokens see each other",
        "row": "; a row's image tokens see each other",
    }
    return f"rows keep their own {kept}{seeing[family.packs.whole]}"


def _video(family: Family) -> str:
    if (form := family.video) is None:
        return "none; rows that show one are refused"
    times = "in seconds to a tenth" if form.time == "middle" else "in whole seconds"
    taken = f"{form.frames} frames seen as one, their time {times} in the prompt"
    if form.frames == 1:
        taken = f"each frame at one size, its time {times} in the prompt"
    served = "any number" if form.served is None else f"at most {form.served}"
    return f"{taken}; learned by `data.video`; in vLLM {served} a request"


def _decoding(decoding: Decoding) -> str:
    if decoding.temperature == 0:
        return "greedy"
    parts = [f"temperature {decoding.temperature}"]
    parts += [f"top_p {decoding.top_p}"] if decoding.top_p < 1 else []
    parts += [f"top_k {decoding.top_k}"] if decoding.top_k else []
    parts += [f"repetition penalty {decoding.repetition_penalty}"] if decoding.repetition_penalty != 1 else []
    parts += [f"presence penalty {decoding.presence_penalty}"] if decoding.presence_penalty else []
    return ", ".join(parts)
