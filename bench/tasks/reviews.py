"""reviews: write the review that a user gave an item, its rating and its title known (the paper's task)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.records import Fields, Instance, Record


@dataclass(frozen=True, slots=True)
class Item:
    """A product that is reviewed."""

    asin: str
    title: str
    description: str


@dataclass(frozen=True)
class Reviews:
    """Reviews of items. A record's `group` is the item's id (asin); its `fields` are `item_title`, `item_description`,
    `rating` (1.0 to 5.0) and `title`. An instance's `given` are `item_title`, `item_description`, `output_rating` and
    `output_title`."""

    target: ClassVar[str] = "review"
    grouped: ClassVar[bool] = True
    timed: ClassVar[bool] = True
    long_fields: ClassVar[tuple[str, ...]] = ("item_description",)
    metrics: ClassVar[tuple[str, ...]] = ("rouge", "meteor", "bleu", "bertscore")
    max_new_tokens: ClassVar[int] = 2048

    def query(self, instance: Instance) -> str:
        """The title of the review to write, a space, the description of its item (Table 8): a query and a document
        differ in nothing but whose review they come from."""
        return f"{instance.given['output_title']} {instance.given['item_description']}"

    def document(self, record: Record) -> str:
        """The review's title, a space, the description of its item."""
        return f"{record.fields['title']} {record.fields['item_description']}"

    def about(self, instance: Instance) -> str:
        """Title and description of the item, a line each."""
        return f"{instance.given['item_title']}\n{instance.given['item_description']}"

    def shown(self, instance: Instance) -> Mapping[str, str]:
        """What a person is shown of the target."""
        given = instance.given
        return {
            "Item": str(given["item_title"]),
            "Rating": str(given["output_rating"]),
            "Review title": str(given["output_title"]),
        }

    def shown_record(self, record: Record) -> Mapping[str, str]:
        """What a person is shown of a review beside its text."""
        fields = record.fields
        return {
            "Item": str(fields["item_title"]),
            "Rating": str(fields["rating"]),
            "Review title": str(fields["title"]),
        }


def review(user_id: str, item: Item, rating: float, title: str, text: str, timestamp: int) -> Record:
    """A review as a record of a profile; `timestamp` in milliseconds since 1970."""
    # A whole number in the data reads as 4.0 too.
    stars = float(rating)
    fields: Fields = {"item_title": item.title, "item_description": item.description, "rating": stars, "title": title}
    return Record(user_id, text, fields, item.asin, timestamp)


def instance(category: str, split: str, target: Record, profile: tuple[Record, ...], suffix: str = "") -> Instance:
    """The instance whose user has to write the review `target`, of which the instance holds all but the text;
    `suffix` tells a user's instances apart, e.g. "/3"."""
    fields = target.fields
    given = {
        "item_title": fields["item_title"],
        "item_description": fields["item_description"],
        "output_rating": fields["rating"],
        "output_title": fields["title"],
    }
    name = f"{category}/{split}/{target.user_id}{suffix}"
    return Instance(name, category, split, target.user_id, given, profile, target.group, target.timestamp)
