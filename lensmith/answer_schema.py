"""The schema of answers as the recipe gives it: in the recipe itself, or in a file of its own."""

from __future__ import annotations

import json
from typing import Any

from lensmith.data_settings import Schema
from lensmith.errors import InputError


def schema_content(settings: Schema) -> Any:
    """The schema as parsed, the order of its keys kept; whether it is one is not looked at here.

    Raises InputError where its file cannot be read, or is not JSON.
    """
    if settings.file is None:
        return settings.inline
    try:
        return json.loads(settings.file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{settings.file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{settings.file} is not JSON: {error}") from error
