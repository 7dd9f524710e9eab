"""The recipe's section `data`: what was handed over, and what is accepted of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lensmith.errors import InputError
from lensmith.section import Count, Place, Positive, ResolvedPath, Section, Share, ShareOrCount, refuse
from lensmith.video_settings import VideoSampling

Action = Literal["ignore", "flag", "redact", "refuse"]
TextPlace = Literal["id", "group", "question", "answer", "meta"]
DetectorName = Literal[
    "email",
    "iban",
    "card",
    "us_ssn",
    "uk_nino",
    "de_steuer_id",
    "fr_nir",
    "es_dni",
    "it_codice_fiscale",
    "nl_bsn",
    "se_personnummer",
    "pl_pesel",
    "br_cpf",
    "in_aadhaar",
    "cn_resident_id",
    "fi_hetu",
    "be_national",
    "ch_ahv",
    "phone",
]
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "SE", "PL", "BR", "IN", "CN", "FI", "BE", "CH")

# What Pillow opens at most, twice its MAX_IMAGE_PIXELS: a greater limit would promise what it refuses.
PILLOW_PIXELS = 178_956_970


class Personal(Section):
    """Personal data in labels."""

    action: Action = Field(
        default="flag",
        description="what happens to it: kept and flagged, replaced by a placeholder, or the row refused",
    )
    detectors: dict[DetectorName, Action] = Field(
        default_factory=dict, description="another action for single detectors"
    )
    places: Annotated[tuple[TextPlace, ...], Field(strict=False)] = Field(
        default=("id", "group", "question", "answer", "meta"), description="where it is looked for"
    )
    phone_regions: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...], Field(strict=False)
    ] = Field(
        default=REGIONS,
        description="countries (ISO 3166) whose national phone formats are looked for, beside +international",
    )

    def action_of(self, detector: DetectorName) -> Action:
        """What happens to what this detector finds."""
        return self.detectors.get(detector, self.action)


class Schema(Section):
    """The JSON Schema (draft 2020-12) of the answers, in the recipe or in a file."""

    inline: dict[str, Any] | None = Field(default=None, description="the schema itself")
    file: ResolvedPath | None = Field(default=None, description="a JSON file that holds the schema")
    pattern_seconds: Positive = Field(
        default=0.05, description="time one regular expression may take on one text, in seconds"
    )

    @model_validator(mode="after")
    def _stands_once(self) -> Schema:
        if (self.inline is None) == (self.file is None):
            raise ValueError("give the schema either inline or as a file")
        return self


class Wording(Section):
    """The wording of labels."""

    longest_answer: Count = Field(default=20_000, description="characters beyond which an answer is flagged")
    shortest_repeat: Count = Field(
        default=16, description="a question of so many characters, found whole in its answer, is flagged"
    )


class Labels(Section):
    """Several labels for one row, by several people."""

    same: Literal["none", "item", "question"] = Field(
        default="none",
        description='which rows label one thing: none, those with one "item" in meta, or those with one'
        " image and question",
    )
    rule: Annotated[str, Field(pattern=r"^(majority|latest|refuse|labeller: ?\S.*)$")] = Field(
        default="refuse",
        description='where they differ, take the "majority", "latest" or "labeller: NAME", or "refuse"',
    )
    named: bool = Field(default=False, description="whether every row must say who labelled it, and when")


# More would drown every other source; whoever wants that has a mistake in the recipe.
MAX_WEIGHT = 1000.0


class SourceSpec(Section):
    """One of several sources."""

    path: Place = Field(description="file or folder that was handed over, or its address in a store")
    format: str = Field(default="", description="its format; found out where empty")
    options: dict[str, Any] = Field(default_factory=dict, description="the reader's options")
    cap: Annotated[int, Field(ge=0)] = Field(default=0, description="at most so many rows of it; 0: all")
    weight: Annotated[Positive, Field(le=MAX_WEIGHT)] = Field(
        default=1.0, description="times a training row of it is seen in an epoch, on average; 1000 at most"
    )

    @property
    def local(self) -> Path:
        """Its path on this machine. Raises InputError for an address, which is fetched first."""
        if isinstance(self.path, str):
            raise InputError(f"{self.path} was not fetched")
        return self.path


class Download(Section):
    """Images that rows name by an address on the web (http or https)."""

    hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z0-9_.-]+(:[0-9]{1,5})?$")], ...], Field(strict=False)
    ] = Field(
        default=(),
        description="hosts that images may be fetched from, by their exact names in lower case, with the port"
        " where it is not the usual one; none: an address is refused",
    )
    http: bool = Field(default=False, description="whether addresses without encryption are fetched as well")
    seconds: Positive = Field(
        default=60.0, description="time that one image may take, redirects included, in seconds"
    )


class SplitRule(Section):
    """How rows are assigned to splits: by a hash of seed and group, so that adding rows moves none."""

    validation: Share = Field(default=0.1, description="share of the groups for validation")
    held_out: Share = Field(default=0.2, description="share of the groups for the sealed held-out set")
    seed: int = Field(default=17, description="of the hash; another seed is another split")
    stratify: Annotated[str, Field(min_length=1)] = Field(
        default="none",
        description="in what each split gets its share of the groups: in all rows (none), in each source"
        " (source), or in the rows with each value of an answer's field, by its name",
    )

    @model_validator(mode="after")
    def _leaves_train(self) -> SplitRule:
        if self.validation + self.held_out >= 1:
            raise ValueError("validation and held_out together leave no rows for training")
        return self


class Data(Section):
    """The labelled data and what is accepted of it."""

    source: Place | None = Field(
        default=None,
        description="file or folder with the labelled rows, or its address in a store (`s3://bucket/forms`);"
        " images lie relative to it",
    )
    format: str = Field(default="", description="the format of `source`; found out where empty")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader of `source`")
    sources: list[SourceSpec] = Field(
        default_factory=list, description="several sources instead of one, with caps and weights"
    )
    answer: Literal["json", "text"] = Field(default="text", description="what an answer must be")
    text_only: bool = Field(
        default=False,
        description="whether rows of labels in Lensmith's own or a chat format may show no image at all, to"
        " teach text alone; else such a row is refused",
    )
    answer_schema: Schema | None = Field(default=None, description="JSON Schema that answers must meet")
    split: SplitRule = Field(default_factory=SplitRule, description="how rows are split")
    similar: Literal["together", "ignore"] = Field(
        default="together",
        description="whether near copies of one picture, or of one long answer, must stay in one split",
    )
    long_answer: Count = Field(
        default=30,
        description="words from which an answer, or a text in a JSON answer, is compared with others: shorter"
        " ones are alike without any leak",
    )
    previous: str = Field(
        default="", description="the dataset this one follows, by id: its rows keep their split"
    )
    exams: list[str] = Field(
        default_factory=list,
        description="held-out sets, by id, whose pictures and long answers no row may repeat",
    )
    personal: Personal = Field(default_factory=Personal, description="personal data in labels")
    wording: Wording = Field(default_factory=Wording, description="the wording of labels")
    labels: Labels = Field(default_factory=Labels, description="several labels for one row")
    too_long: Literal["keep", "refuse", "resize"] = Field(
        default="keep",
        description="a row beyond train.max_length, or that leaves serve.max_new_tokens no room in"
        " serve.max_model_len: kept, so that training stops and names it, refused here, or its largest"
        " pictures reduced until it fits; counted with the base's tokenizer",
    )
    max_bad: ShareOrCount = Field(
        default=0.05, description="refused rows beyond which nothing is written: a share, or a count"
    )
    engine: Literal["local", "ray"] = Field(
        default="local",
        description="where rows and pictures are checked: this machine, or the cluster at RAY_ADDRESS (one of"
        " its own on this machine where that is unset); the dataset is the same",
    )
    download: Download = Field(default_factory=Download, description="images named by address")
    video: VideoSampling | None = Field(
        default=None, description="how videos are sampled; a row that shows one is refused where absent"
    )
    max_image_pixels: Annotated[int, Field(ge=1, le=PILLOW_PIXELS)] = Field(
        default=100_000_000, description="decoded size accepted, in pixels"
    )
    max_image_bytes: Count = Field(default=50_000_000, description="encoded size accepted, in bytes")

    @model_validator(mode="after")
    def _one_way(self) -> Data:
        problems: list[str] = []
        if (self.source is None) == (not self.sources):
            problems.append("give the data either as source or as sources")
        if self.sources and (self.format or self.options):
            problems.append("format and options belong to each of the sources")
        if self.answer != "json" and self.split.stratify not in ("none", "source"):
            problems.append("split.stratify names a field, which only answers in JSON have")
        refuse(problems)
        return self

    def all_sources(self) -> list[SourceSpec]:
        """Every source, also where there is only one."""
        if self.source is None:
            return self.sources
        return [SourceSpec(path=self.source, format=self.format, options=self.options)]
