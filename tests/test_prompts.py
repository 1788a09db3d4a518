"""Templates as text files, and the two searches that make a prompt fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import ConfigError
from bench.prompts import FOLDER, Templates, fill, fitting, longest_prefix

VALUES = {
    "item_title": "Red Kite",
    "item_description": "A kite.",
    "output_rating": "5.0",
    "output_title": "Lovely",
    "history": "HISTORY",
    "summary": "SUMMARY",
    "guidance": "GUIDANCE",
    "soft_tokens": "SOFT",
    "differences": "DIFFERENCES",
    "own_rating": "4.0",
    "own_title": "TITLE",
    "own_text": "TEXT",
}


def own(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_a_value_is_put_in_once_whatever_it_holds() -> None:
    values = {"a": "{{b}} {c} \\1 {% if %}", "b": "never"}
    assert fill("<{{a}}|{{a}}>{x}", values, "t") == "<{{b}} {c} \\1 {% if %}|{{b}} {c} \\1 {% if %}>{x}"


def test_a_placeholder_without_a_value() -> None:
    with pytest.raises(ConfigError, match=r"prompt t: no value for \{\{x\}\} \(known here: a, b\)"):
        fill("{{x}}", {"b": "", "a": ""}, "t")


def test_the_shipped_block_is_that_of_figure_6_without_the_embeddings() -> None:
    values = {
        "number": "2",
        "item_title": "Red Kite",
        "item_description": "A kite.",
        "rating": "4.0",
        "title": "Flies",
        "text": "Up it went.",
    }
    assert Templates.load().block(values) == (
        "- [Review 2]:\n- [Item Title]: Red Kite\n- [Item Description]: A kite.\n"
        "- [Review Rating]: 4.0\n- [Review Title]: Flies\n- [Review Text]: Up it went."
    )


def test_the_shipped_rag_prompt_is_that_of_figure_6_without_the_embeddings() -> None:
    system, user = Templates.load().render("rag_review", VALUES)
    assert system == (
        "Given the title and description of an item, along with the user's past reviews (including item title, item "
        "description, review rating, review title, review text), and the output review rating and review title, "
        "generate a personalized item review for the user."
    )
    assert user == (
        "[Item Title]: Red Kite\n[Item Description]: A kite.\n[User's Past Reviews]:\nHISTORY\n"
        "[Output Review Rating]: 5.0\n[Output Review Title]: Lovely"
    )


def test_every_shipped_prompt_renders() -> None:
    templates = Templates.load()
    for name in templates.texts:
        if "=== user" in templates.texts[name]:
            system, user = templates.render(name, VALUES)
            assert system
            assert "{{" not in system + user


def test_own_wording_replaces_one_template_and_its_hash_alone(tmp_path: Path) -> None:
    text = "=== system\nWrite.\n=== user\n{{item_title}}\n=== user\nmore"
    templates, shipped = Templates.load(own(tmp_path, "rag_review", text)), Templates.load()
    assert templates.render("rag_review", VALUES) == ("Write.", "Red Kite\n=== user\nmore")
    assert templates.render("pag_review", VALUES) == shipped.render("pag_review", VALUES)
    changed = {name for name, digest in templates.fingerprint.items() if digest != shipped.fingerprint[name]}
    assert changed == {"rag_review"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rag_reveiw", "x", r"rag_reveiw\.txt replaces no template; there are: block, dep_"),
        ("pag_review", "Write a review.", r"pag_review\.txt: the file needs '=== system' as its first line"),
        ("pag_review", "=== system\nx", "the file needs '=== system' as its first line"),
        ("pag_review", "=== system\nx\n=== user\n{{sumary}}", r"no value \{\{sumary\}\}; there are: .*summary"),
        ("block", "{{text}} {{stars}}", r"block\.txt: there is no value \{\{stars\}\}; there are: .*rating"),
        ("block", "{{output_title}}", r"there is no value \{\{output_title\}\}"),
    ],
)
def test_own_wording_that_could_fail_late_is_refused_at_once(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        Templates.load(own(tmp_path, name, text))


def test_a_folder_without_templates(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"is not a folder of templates; it needs NAME\.txt for block, "):
            Templates.load(folder)


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "block.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        Templates.load(tmp_path)


def test_an_unknown_template() -> None:
    with pytest.raises(ConfigError, match="there is no prompt template 'x'; there are: block, "):
        Templates.load().render("x", VALUES)


def test_the_templates_are_beside_the_module() -> None:
    assert set(Templates.load().texts) == {path.stem for path in FOLDER.glob("*.txt")}


@given(offered=st.integers(0, 40), limit=st.integers(0, 45))
def test_fitting_is_the_largest_that_fits(offered: int, limit: int) -> None:
    probes: list[int] = []

    def fits(n: int) -> bool:
        probes.append(n)
        return n <= limit

    assert fitting(offered, fits) == min(offered, limit)
    assert len(probes) <= 8


@given(text=st.text(alphabet="ab ", max_size=30), limit=st.integers(0, 35))
def test_longest_prefix_is_the_longest_of_whole_words(text: str, limit: int) -> None:
    found = longest_prefix(text, lambda prefix: len(prefix) <= limit)
    assert text.startswith(found)
    assert len(found) <= limit
    if len(text) <= limit:
        assert found == text
    elif " " in text[:limit]:
        whole = [i for i in range(limit + 1) if text[i] == " "]
        assert len(found) == max(whole)


def test_longest_prefix_by_hand() -> None:
    assert longest_prefix("one two three", lambda p: len(p) <= 7) == "one two"
    assert longest_prefix("one two three", lambda p: len(p) <= 9) == "one two"
    assert longest_prefix("abcdef", lambda p: len(p) <= 4) == "abcd"
    assert longest_prefix("one two", lambda _: False) == ""


def test_longest_prefix_fits_even_where_fitting_is_not_monotone() -> None:
    # "one two" alone takes more than "one two t": a shorter text is not always cheaper.
    refused = {"one two"}
    assert longest_prefix("one two three four", lambda p: len(p) <= 9 and p not in refused) == "one"
