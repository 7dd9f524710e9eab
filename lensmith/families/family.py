"""What a model family's file states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lensmith.coordinates import CoordinateForm
from lensmith.engine_versions import KNOWN
from lensmith.errors import InputError, Problem
from lensmith.families.engine_offer import EngineOffer
from lensmith.families.experts import Experts, value_at
from lensmith.families.layout import AS_IN_CLASS, Layout
from lensmith.families.packs import Packs
from lensmith.families.video_form import VideoForm
from lensmith.families.vision_run import VisionRun

Tower = Literal["vision", "connector", "language"]
TOWERS: tuple[Tower, ...] = ("vision", "connector", "language")
# How a family's processor cuts images; `tokens` has a grid for each. "area": resized under a pixel budget;
# "fixed": to one size, crops of long images optional; "tiles": one size and tiles beside it; "crops":
# overlapping crops on a canvas.
ImageCut = Literal["area", "fixed", "tiles", "crops"]


@dataclass(frozen=True)
class Linears:
    """A set of equal linear layers: `names` below each of `prefix`'s numbered blocks.

    `prefix` holds one `{}` for the block's number where there are several; `count` is the dotted path
    into the model's config whose value (an integer, or a list that is counted) says how many
    blocks there are, empty for one block without a number. `layers` leaves only the decoder layers with
    routed experts ("sparse"), or only those without ("dense").
    """

    tower: Tower
    prefix: str
    names: tuple[str, ...]
    count: str = ""
    layers: Literal["all", "sparse", "dense"] = "all"


@dataclass(frozen=True)
class Speech:
    """How a family's chat template writes what an assistant thinks and calls, as text.

    thinking: what stands before and behind a thought; None where it has no thoughts. call: "json" is Qwen's
    <tool_call> with one JSON object, "arguments" is GLM's with a key and a value tag for each argument; None
    where it calls no tools. image: how an argument of a call names an image of the conversation, `{}` being
    its number from 0; "{}" alone is a bare number. system: whether a conversation may begin with a system
    message.
    """

    thinking: tuple[str, str] | None = None
    call: Literal["json", "arguments"] | None = None
    image: str = "{}"
    system: bool = True


# Families whose chat template knows questions and answers only.
PLAIN_SPEECH = Speech()


@dataclass(frozen=True)
class ImageText:
    """What the processor makes of the chat template's place for an image, as text.

    place: what the template writes. token: one image token. written: what the place becomes, `{}` being all
    of an image's tokens.
    """

    place: str
    token: str
    written: str = "{}"

    def fill(self, prompt: str, images: int) -> str:
        """The prompt with each image's place as it becomes, but one token for all of an image's.

        Raises InputError where it has not as many places as images.
        """
        if (places := prompt.count(self.place)) != images:
            raise InputError(
                f"a prompt has {places} places for {images} images",
                [
                    Problem(
                        f"the chat template does not write {self.place} for each", mend="mend the template"
                    )
                ],
            )
        return prompt.replace(self.place, self.written.format(self.token))


@dataclass(frozen=True)
class Decoding:
    """The sampling settings that a family's card recommends; what a checkpoint's generation config states
    goes before it. Temperature 0 is greedy; top_k 0 and top_p 1 leave nothing out."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0


GREEDY = Decoding(temperature=0.0)


@dataclass(frozen=True)
class Foreign:
    """A checkpoint that looks like the family and is another: only code it brings along can run it.

    model_type, architecture: as its config.json says. native: the checkpoint to use instead.
    """

    model_type: str
    architecture: str
    native: str


@dataclass(frozen=True)
class Family:
    """Facts of one family; its file's first lines say where they were read.

    model_type: `model_type` of the checkpoint's config.json.
    architecture: transformers' class name, as config.json's `architectures` states it.
    towers: each tower's module prefixes in that class.
    linears: every nn.Linear that LoRA can adapt, by tower.
    vision_run: how its vision tower is run on a batch's images.
    experts: the routed experts, None where it has none.
    layout: where published checkpoints keep the class's tensors.
    vllm_versions: the minor releases of vLLM that all of its `vllm_` facts hold for.
    vllm_architecture: the class vLLM serves it with, which it chooses by config.json's `architectures`.
    vllm_adapts: towers whose LoRA vLLM applies, with the engine option each needs ("" for none).
    vllm_names: how vLLM names an adapter's modules, and which it joins that the class has apart; its own
        class splits what it joins otherwise.
    vllm_no_adapters: by the device that vLLM is built for why it applies no adapter at all.
    vllm_limits: what else vLLM cannot serve of it, or serves otherwise, in sentences.
    vllm_offers: parsers and ways to share it out over GPUs, with what vLLM's own recipes turn on.
    vllm_images: by the device that vLLM is built for ("cpu", "cuda") what it computes otherwise where a
        prompt has images, so that answers differ from the model's; a serve proof names it.
    vllm_config: gives config.json in the form that vLLM reads, of the published one; None where they are the
        same.
    image_id: the key of config.json that names the token which an image's features take.
    markup: texts that the chat template gives a meaning to; typed in data they are refused.
    coordinates: how it writes boxes, points and spans. speech: how it writes thoughts and tool calls.
    cut: how its processor cuts images. image_text: what it makes of an image's place in the prompt.
    numbers: pairs of tensors that its processor gives, the first of which numbers the patches (first two
        dimensions) of the second, -1 for none: joined from several rows they go on counting.
    context: tokens that its published checkpoints were trained for; config.json decides.
    context_scaled: config.json states it with the scaling of positions, if any, counted in.
    frames: how often an image counts against the pixel budget: GLM's processor bounds pixels times
        temporal patch size (2 for a still image), Qwen's bounds pixels.
    answers: "template" where the chat template writes an answer right behind its generation prompt;
        "apart" where it does not, and the answer's own tokens are put there.
    leads: the processor puts the tokenizer's BOS (its EOS where it has none) before a prompt without it.
    ships_code: published checkpoints name code of their own (auto_map) beside the class that transformers
        has; it is never run.
    foreign: checkpoints that are refused with the name of the one to use.
    template: a chat template for checkpoints that are published without one; docs/families.md.
    packs: what rows packed into one sequence need to learn what they learn apart, which is proven; None where
        it is not, and packing is refused.
    video: how its processor takes videos; None where it takes none, or that is not shown.
    not_whole: by tower why an adapter cannot hold all of its weights.
    no_new_tokens: why rows of new tokens cannot be trained, merged or served as trained; "" where they are
        proven to be.
    """

    name: str
    title: str
    model_type: str
    architecture: str
    licence: str
    towers: dict[Tower, tuple[str, ...]]
    linears: tuple[Linears, ...]
    vision_run: VisionRun
    vllm_architecture: str
    vllm_adapts: dict[Tower, str]
    vllm_offers: EngineOffer
    markup: tuple[str, ...]
    coordinates: CoordinateForm
    speech: Speech
    image_text: ImageText
    decoding: Decoding
    context: int
    context_scaled: bool = False
    cut: ImageCut = "area"
    numbers: tuple[tuple[str, str], ...] = ()
    experts: Experts | None = None
    layout: Layout = AS_IN_CLASS
    vllm_versions: tuple[str, ...] = KNOWN
    vllm_names: Layout = AS_IN_CLASS
    vllm_no_adapters: Mapping[str, str] = field(default_factory=dict)
    vllm_limits: tuple[str, ...] = ()
    vllm_images: Mapping[str, str] = field(default_factory=dict)
    vllm_config: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    image_id: str = "image_token_id"
    frames: int = 1
    answers: Literal["template", "apart"] = "template"
    leads: bool = False
    ships_code: bool = False
    foreign: tuple[Foreign, ...] = ()
    template: str = ""
    packs: Packs | None = None
    video: VideoForm | None = None
    not_whole: Mapping[Tower, str] = field(default_factory=dict)
    no_new_tokens: str = "not proven to be learned and served"

    def adaptable(self, tower: Tower) -> bool:
        """Whether `tower` has linear layers that LoRA can adapt."""
        return any(group.tower == tower for group in self.linears)

    def vllm_rank(self, tower: Tower, rank: int) -> int:
        """The rank that vLLM is given where every linear of `tower` has `rank`: joined layers have their
        parts' together."""
        joined = [each for each in self.vllm_names.joined if self.find_tower(each.block) == tower]
        return rank * max([len(each.parts) for each in joined], default=1)

    def expected_linears(self, config: dict[str, Any], tower: Tower) -> list[str]:
        """Full module names of every linear of `tower` that a model with this config has.

        `config` is the config as the class holds it: a checkpoint's own file may leave out what has its
        default, or say it in another way.
        """
        names: list[str] = []
        for group in self.linears:
            if group.tower != tower:
                continue
            blocks = [group.prefix.format(i) for i in self._blocks(config, group)]
            names += [f"{block}.{name}" for block in blocks for name in group.names]
        return names

    def _blocks(self, config: dict[str, Any], group: Linears) -> list[int]:
        value = value_at(config, group.count) if group.count else 1
        blocks = range(len(value) if isinstance(value, list) else int(value))
        if group.layers == "all":
            return list(blocks)
        sparse = set(self.experts.sparse_layers(config)) if self.experts else set()
        return [block for block in blocks if (block in sparse) == (group.layers == "sparse")]

    def find_tower(self, name: str) -> Tower | None:
        """The tower whose prefix the module or parameter `name` lies under, the longest where several do."""
        found: list[tuple[int, Tower]] = [
            (len(prefix), tower)
            for tower, prefixes in self.towers.items()
            for prefix in prefixes
            if name == prefix or name.startswith(f"{prefix}.")
        ]
        return max(found)[1] if found else None

    def tower_of(self, name: str) -> Tower:
        """As `find_tower`. Raises InputError where it is none: it would be trained or frozen by accident."""
        tower = self.find_tower(name)
        if tower is None:
            mend = f"state it in the family's file, lensmith/families/{self.name}"
            raise InputError(
                f"{self.title} has no tower for {name}", [Problem("belongs to no tower", name, mend)]
            )
        return tower
