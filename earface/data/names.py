"""Names of people, written in one way."""

from __future__ import annotations

import unicodedata


def person_name(name: str) -> str:
    """In Unicode's composed form (NFC) and without blanks around it: names that look alike are one person."""
    return unicodedata.normalize("NFC", name).strip()
