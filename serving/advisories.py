"""Published security advisories of vLLM, held against the version and the settings that would run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field, ValidationError

from lensmith.errors import InputError, Problem
from lensmith.section import Section
from lensmith.yaml_file import read_yaml
from serving.host import is_local

TABLE = Path(__file__).with_suffix(".yaml")


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(str(error)) from error
    return text


def _release(version: str) -> Version | None:
    """Of a development or local build the version that it is of; None where that cannot be read."""
    try:
        return Version(Version(version).base_version)
    except InvalidVersion:
        return None


class Setting(Section):
    """One setting of the engine's command line or environment; exactly one of the four names is given."""

    option: str = Field(default="", description="it must stand there, with `value` where one is given")
    without: str = Field(default="", description="the option must not stand there")
    variable: str = Field(default="", description="it must have `value`")
    without_variable: str = Field(default="", description="the variable must not be set")
    value: str = ""

    def holds(self, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether the engine would run with it."""
        if self.without:
            return self.without not in argv
        if self.without_variable:
            return self.without_variable not in environment
        if self.variable:
            return environment.get(self.variable) == self.value
        # As vLLM reads it, the last one holds.
        values = [argv[at + 1] for at, word in enumerate(argv[:-1]) if word == self.option]
        return bool(values) and (not self.value or values[-1] == self.value)

    def __str__(self) -> str:
        """In words."""
        if self.without or self.without_variable:
            return f"no {self.without or self.without_variable}"
        return f"{self.option or self.variable} {self.value}".rstrip()


class Advisory(Section):
    """One advisory. affected: versions, as pip writes them. mitigated_by: all of them keep it out."""

    ids: list[str] = Field(min_length=1)
    affected: Annotated[str, AfterValidator(_specifier)]
    what: str
    mitigated_by: list[Setting]
    source: str

    def hits(self, version: str) -> bool:
        """Whether a version is affected; one that cannot be read (a build of one's own) is taken to be."""
        release = _release(version)
        return release is None or release in SpecifierSet(self.affected)


class _Table(Section):
    """covers: the versions that all advisories were looked for of, as pip writes them."""

    read: str
    covers: Annotated[str, AfterValidator(_specifier)]
    advisories: list[Advisory]


@dataclass(frozen=True)
class Hit:
    """An advisory that hits, and whether the settings keep it out."""

    advisory: Advisory
    mitigated: bool

    def facts(self) -> dict[str, str | list[str]]:
        """What programs are told: `kept_out_by` is empty where it is open."""
        kept_out_by = [str(each) for each in self.advisory.mitigated_by] if self.mitigated else []
        return {
            "ids": self.advisory.ids,
            "what": self.advisory.what,
            "kept_out_by": kept_out_by,
            "source": self.advisory.source,
        }


@cache
def _read_table() -> _Table:
    try:
        return _Table.model_validate(read_yaml(TABLE).content)
    except ValidationError as error:
        problems = [Problem(each["msg"], ".".join(map(str, each["loc"]))) for each in error.errors()]
        raise InputError(f"{TABLE} cannot be used", problems) from error


def read_advisories() -> tuple[Advisory, ...]:
    """The table's entries. Raises InputError where it cannot be read."""
    return tuple(_read_table().advisories)


def refuse_uncovered(version: str) -> None:
    """Raise InputError for a vLLM older than the table covers: nobody looked what is known against it."""
    covers = _read_table().covers
    if (release := _release(version)) is not None and release not in SpecifierSet(covers):
        mend = "upgrade vLLM (requirements/ names the versions), and prove it: lensmith evaluate RECIPE"
        raise InputError(
            f"vLLM {version} is too old to be served",
            [Problem(f"{TABLE.name} knows what is published against {covers} only", mend=mend)],
        )


def find_hits(version: str, argv: Sequence[str], environment: Mapping[str, str]) -> list[Hit]:
    """The advisories that hit this version of vLLM, started so."""
    return [
        Hit(each, bool(each.mitigated_by) and all(s.holds(argv, environment) for s in each.mitigated_by))
        for each in read_advisories()
        if each.hits(version)
    ]


def refuse_open(host: str, hits: Sequence[Hit]) -> None:
    """Raise InputError with every advisory that is open, where other machines reach the engine."""
    problems = [
        Problem(hit.advisory.what, hit.advisory.ids[0], hit.advisory.source)
        for hit in hits
        if not hit.mitigated
    ]
    if problems and not is_local(host):
        mend = "upgrade vLLM and prove it, or serve on 127.0.0.1"
        raise InputError(
            f"the installed vLLM has known vulnerabilities that no setting here keeps out: {mend}", problems
        )


def start_lines(version: str, hits: Sequence[Hit]) -> list[str]:
    """What the operator is told at a start: each that is open, and how many the settings keep out."""
    opened = [hit.advisory for hit in hits if not hit.mitigated]
    told = [f"advisory of vLLM {version}, open: {a.ids[0]}: {a.what} ({a.source})" for a in opened]
    if kept_out := sum(hit.mitigated for hit in hits):
        told.append(
            f"{kept_out} of the {len(hits)} known advisories of vLLM {version} are kept out by the settings: "
            "lensmith doctor names them"
        )
    return told
