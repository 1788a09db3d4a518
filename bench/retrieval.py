"""The texts that retrievers compare: what is looked for and what it is looked for in (methods "Retrievers", Table 8).

Both pair the title of a review with the description of the item it is about, so a query and a document differ in
nothing but whose review they come from.
"""

from __future__ import annotations

from bench.records import Instance, Item, Review


def query_text(instance: Instance) -> str:
    """The query of an instance: the title of the review to write, a space, the description of its item."""
    return f"{instance.title} {instance.item.description}"


def document_text(review: Review, item: Item) -> str:
    """The document of a past review: its title, a space, the description of `item`, the item it reviews."""
    return f"{review.title} {item.description}"
