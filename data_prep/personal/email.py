"""E-mail addresses, as they are typed, scanned, broken over a line end or spelled out."""

from __future__ import annotations

import re

from data_prep.personal.context import words
from data_prep.personal.detector import Detector

# Letters of scripts that write no spaces: an address of other letters ends where they begin.
_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_LETTER = rf"[^\W_{_DENSE}]"
_AT_WORDS, _DOT_WORDS = "at|arroba|chiocciola|małpa", "dot|punkt|point|punto|ponto|kropka|punt"
# RFC 5322: atoms and dots (braces only in pairs), or anything in quotes. Never given back once read (the last
# +): no sign for an @ begins inside it.
_LOCAL = (
    rf"(?:{_LETTER}(?:[^\W{_DENSE}]|[+%'!&-]|\.(?![.@])|\{{(?!(?:{_AT_WORDS})\}})[^\W_]{{1,20}}\}}){{0,63}}+"
    rf"|[{_DENSE}][{_DENSE}0-9_]{{0,31}}"
    r'|"[^"\r\n\\@]{1,64}")'
)
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_TOP = (
    rf"(?:xn--[a-z0-9-]{{2,59}}|[^\W\d_{_DENSE}]{{2,24}}|中国|中國|公司|网络|香港|台湾|台灣|한국|みんな|ไทย)"
)
_LINE = r"\r?\n {0,4}"
_AT = (
    rf"(?: {{0,2}}@ {{0,2}}(?:{_LINE})?"
    rf"|\s?[\[({{]\s?(?:@|{_AT_WORDS})\s?[\])}}]\s?"
    rf"| (?:{_AT_WORDS}) )"
)
_DOT = (
    rf"(?:\.(?: |{_LINE})?|{_LINE}\.| \. ?"
    rf"|\s?[\[({{]\s?(?:\.|{_DOT_WORDS})\s?[\])}}]\s?"
    rf"| (?:{_DOT_WORDS}) )"
)
_HOST = (
    rf"(?:(?:{_LABEL}(?:-{_LINE}{_LABEL})?{_DOT}){{1,9}}{_TOP}"
    # RFC 5321: an address of a machine.
    r"|\[(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|IPv6:[0-9A-Fa-f:.]{2,45})\])"
)
# An @ before it makes it a name in a chat; a : and a / after it a place of code, as in git@host:project/x.
_EMAIL = re.compile(
    rf"(?<![^\W_{_DENSE}])(?<![+%@!&}}-])(?<!\w\.)(?<!\w\.\.){_LOCAL}{_AT}{_HOST}"
    rf"(?![_-]?{_LETTER}|\.[^\W\d_]|@|:[\w.~-]{{0,64}}[/~])",
    re.IGNORECASE,
)
_AT_ALONE = re.compile(_AT, re.IGNORECASE)
_DOT_ALONE = re.compile(_DOT, re.IGNORECASE)
# What follows the last dot in names of files that carry an @, as in logo@2x.png.
_FILES = re.compile(
    r"png|jpe?g|gif|webp|svg|bmp|tiff?|ico|pdf|css|jsx?|tsx?|json|map|zip|gz|tar|py|txt|csv|xml|html",
    re.IGNORECASE,
)
# A package and its version, as in left-pad@1.3.0-beta.rc.
_VERSION = re.compile(r"v?[0-9]+\.[0-9]")
# Last parts of addresses that are no words at the start of a sentence.
_COMMON = frozenset({"com", "org", "net", "edu", "gov", "mil", "info", "biz", "eu", "io"})
_PASSWORD = re.compile(r"//[^\s/@]{1,64}:\Z")
_TWO_WORDS = re.compile(r"[^\W\d_][._][^\W\d_]")
# Another address stands before a slash, not a path.
_BESIDE = re.compile(r"@[\w.-]{1,80}/\Z")
_SPELLED = re.compile(
    rf" (?:{_AT_WORDS}) [\w-]{{1,63}}(?:\.\w|\s?[\[(]\s?(?:\.|{_DOT_WORDS})| (?:{_DOT_WORDS}) )",
    re.IGNORECASE,
)
_BRACKETS = re.compile(rf"[\[({{]\s?(?:{_AT_WORDS})\s?[\])}}]", re.IGNORECASE)


def has_address(text: str) -> bool:
    """Whether there is an @ or what stands for it; cheap."""
    if "@" in text or (("[" in text or "(" in text or "{" in text) and _BRACKETS.search(text)):
        return True
    # Plain comparisons: this is asked of every value of every row.
    at = " at " in text or " AT " in text or " arroba " in text or " chiocciola " in text or " małpa " in text
    return at and bool(_SPELLED.search(text))


def _parts(found: str) -> tuple[str, str, str]:
    """Name, what stands for the @, and host."""
    at = _AT_ALONE.search(found, found.rindex('"') if found.startswith('"') else 0)
    assert at is not None, found
    return found[: at.start()], at.group(), found[at.end() :]


def _email_length(found: str) -> int:
    """Characters of the address that `found` begins with: a host may have run into the next sentence."""
    name, at, host = _parts(found)
    if host.startswith("["):
        return len(found)
    length = _host_length(host)
    host = host[:length]
    if not length or _FILES.fullmatch(host.rpartition(".")[2]) or _VERSION.match(host):
        return 0
    return len(name) + len(at) + length


def _host_length(host: str) -> int:
    """Up to the dot that ends a sentence; 0 where nothing before it is a host."""
    dots = list(_DOT_ALONE.finditer(host))
    label_at = 0
    for count, dot in enumerate(dots, start=1):
        label = host[label_at : dot.start()]
        label_at = dot.end()
        ends = dots[count].start() if count < len(dots) else len(host)
        if not _goes_on(dot.group(), label, host[label_at:ends], count, ends == len(host)):
            return dot.start() if count > 1 else 0
    return len(host)


def _goes_on(dot: str, label: str, following: str, count: int, is_last: bool) -> bool:
    """Whether a host goes on after `label`, its part number `count`, with `dot` and `following`."""
    if dot == ".":
        return not (label.islower() and following.istitle() and following.isascii())
    if dot.strip() != "." or not (dot.startswith(".") or "\n" in dot):
        return not following.istitle()
    # As at the end of a sentence, or before a name such as .env. One part is no host: it has to go on.
    incomplete = count == 1 and "\n" in dot and following.islower()
    return (incomplete and (not is_last or _is_top(following))) or (
        not _is_top(label) and following in _COMMON
    )


def _is_top(label: str) -> bool:
    return label.lower() in _COMMON or len(label) == 2


def _is_unmistakable(found: str) -> bool:
    """As typed, in the brackets people put against robots, or with spaces and line ends that only an address
    has; else a word has to say that it is one."""
    name, at, host = _parts(found)
    dots = [dot.group() for dot in _DOT_ALONE.finditer(host)]
    if at.strip() != "@":
        return at.strip()[0] in "[({" and all("." in dot or dot.strip()[0] in "[({" for dot in dots)
    # A space before an @ stands in "two @ 4.50" too: the name or another dot has to look like an address.
    named = bool(_TWO_WORDS.search(name)) and _is_top(_DOT_ALONE.split(host)[-1])
    return at.startswith("@") or " . " in dots or named


def _is_place(text: str, before: str, start: int, end: int) -> bool:
    """Whether it is a password and a machine, as in ftp://user:word@host, or a part of a path."""
    ahead = (before + text[max(0, start - 96) : start])[-96:]
    return bool(_PASSWORD.search(ahead)) or (ahead.endswith("/") and not _BESIDE.search(ahead))


EMAIL = Detector(
    "email",
    "an e-mail address",
    "[e-mail]",
    _EMAIL,
    0,
    _email_length,
    _is_unmistakable,
    words(
        r"e-?mails?", r"mails?", r"courriels?", r"m[ée]l", r"correo", r"posta", r"poczta", r"mejl",
        r"sähköposti\w*", r"e-?post", r"contact\w*", r"contatt\w*", r"kontakt\w*", r"schreib\w*",
        r"écri\w*", r"escrib\w*", r"scriv\w*", anywhere=("邮箱", "邮件", "電子郵件", "メール", "連絡先"),
    ),
    instead=_is_place,
)  # fmt: skip
