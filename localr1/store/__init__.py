"""Conversations and traces on disk: one SQLite file with full-text search.

store.py     Store: what the chat and the commands call
schema.py    the tables, how a file is opened and migrated, what can go wrong with it
packing.py   tokens with their numbers <-> compressed columns
words.py     what counts as a word, and where it is in a text
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localr1.store.schema import StoreError
    from localr1.store.store import Store
    from localr1.store.values import Conversation, Hit, Summary, TextPart, TraceSummary, Turn

__all__ = ["Conversation", "Hit", "Store", "StoreError", "Summary", "TextPart", "TraceSummary", "Turn"]


def __getattr__(name: str) -> Any:
    """Each where it is first asked for: a chat's first paint need not wait for what reads the file."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = {"Store": "store", "StoreError": "schema"}.get(name, "values")
    return getattr(import_module(f"{__name__}.{module}"), name)
