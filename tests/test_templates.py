"""Templates as text files: where they are looked up, which of them a method renders, and what is refused at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import bench.methods
import bench.tasks
from bench import registry, templates
from bench.chat import Chat
from bench.context import Context, derive_seed
from bench.data.corpus import Corpus
from bench.data.peers import Peers
from bench.errors import ConfigError, PluginError
from bench.protocols import Properties
from bench.records import Instance, Prompt, Record
from bench.templates import Templates, fill

Register = Callable[[str, str, type], None]

FIELDS = {"item_title": "Red Kite", "item_description": "A kite.", "rating": "4.0", "title": "Flies"}
BLOCK = FIELDS | {"number": "2", "index": "1", "text": "Up it went."}
GIVEN = {
    "item_title": "Red Kite",
    "item_description": "A kite.",
    "output_rating": "5.0",
    "output_title": "Lovely",
}
VALUES = GIVEN | {
    "history": "HISTORY",
    "summary": "SUMMARY",
    "guidance": "GUIDANCE",
    "soft_tokens": "SOFT",
    "differences": "DIFFERENCES",
    "own_text": "TEXT",
    "rating": "4.0",
    "title": "TITLE",
}


def load(name: str, folder: Path | None = None, **options: object) -> Templates:
    """The templates of a method for reviews."""
    method = registry.create("methods", name, options)
    return templates.load(method, name, registry.create("tasks", "reviews", {}), "reviews", folder)


def write(folder: Path, place: str, text: str) -> Path:
    path = folder / f"{place}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return folder


def laid(plugin: type, folder: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """A class as if its file lay in a folder, with its templates beside it."""
    module = ModuleType(f"bench_of_{folder.name}")
    module.__file__ = str(folder / "plugin.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(plugin, "__module__", module.__name__)
    return plugin


# -- filling in --------------------------------------------------------------------------------------------------


def test_a_value_is_put_in_once_whatever_it_holds() -> None:
    values = {"a": "{{b}} {c} \\1 {% if %}", "b": "never"}
    assert fill("<{{a}}|{{a}}>{x}", values, "t") == "<{{b}} {c} \\1 {% if %}|{{b}} {c} \\1 {% if %}>{x}"


def test_a_placeholder_without_a_value() -> None:
    with pytest.raises(ConfigError, match=r"prompt t: no value for \{\{x\}\} \(known here: a, b\)"):
        fill("{{x}}", {"b": "", "a": ""}, "t")


def test_a_section_is_left_out_where_its_value_is_empty() -> None:
    template = "a\n{{#x}}\n[X]:\n{{x}}\n{{/x}}\nb{{#y}} and {{y}}{{#x}}, {{x}}{{/x}}{{/y}}."
    assert fill(template, {"x": "", "y": "Y"}, "t") == "a\nb and Y."
    assert fill(template, {"x": "X", "y": ""}, "t") == "a\n[X]:\nX\nb."
    # What a value holds is never taken for a mark.
    assert fill(template, {"x": "{{#y}}", "y": "{{/x}}"}, "t") == "a\n[X]:\n{{#y}}\nb and {{/x}}, {{#y}}."


# -- what is shipped ---------------------------------------------------------------------------------------------


def test_the_shipped_block_is_that_of_figure_6_without_the_embeddings() -> None:
    assert load("rag").part("block", BLOCK) == (
        "- [Review 2]:\n- [Item Title]: Red Kite\n- [Item Description]: A kite.\n"
        "- [Review Rating]: 4.0\n- [Review Title]: Flies\n- [Review Text]: Up it went."
    )


def test_the_shipped_rag_prompt_is_that_of_figure_6_without_the_embeddings() -> None:
    system, user = load("rag").render("write", VALUES)
    assert system == (
        "Given the title and description of an item, along with the user's past reviews (including item title, item "
        "description, review rating, review title, review text), and the output review rating and review title, "
        "generate a personalized item review for the user."
    )
    assert user == (
        "[Item Title]: Red Kite\n[Item Description]: A kite.\n[User's Past Reviews]:\nHISTORY\n"
        "[Output Review Rating]: 5.0\n[Output Review Title]: Lovely"
    )


PARTS = {"block", "block_without_text", "his", "diff", "guidance", "peer", "item", "given", "instruction"}
PARTS |= {"described_item", *(f"released_{name}" for name in ("block", "block_without_text", "his", "diff"))}
"""Templates that are parts of prompts; all others are prompts."""


ALL_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "dep": [{"text": text, "layout": layout} for text in (True, False) for layout in ("figure6", "released")],
    "dpl": [{"item_descriptions": described} for described in (False, True)],
}
"""Options of a method that between them render all of its templates."""


def loaded(name: str) -> list[Templates]:
    return [load(name, **options) for options in ALL_OPTIONS.get(name, [{}])]


@pytest.mark.parametrize("name", [name for name in registry.builtin_names("methods") if name != "copy"])
def test_every_shipped_template_renders(name: str) -> None:
    for found in loaded(name):
        assert "write" in found or "released" in found
        for template in found.texts:
            if template in PARTS:
                texts = [found.part(template, BLOCK | {"difference": "D", "own_text": "O"})]
            else:
                texts = list(found.render(template, VALUES))
            assert all(texts)
            assert "{{" not in "".join(texts)


def shipped(folder: Path) -> set[str]:
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt")}


NOT_GENERAL = {"dep/block_without_text", "dep/released_block_without_text"}
"""Forms of the task's own block."""


def test_no_shipped_template_is_left_over() -> None:
    """Every file is one that some method renders for reviews, or the general form of one."""
    here = {
        place for name in registry.builtin_names("methods") for found in loaded(name) for place in found.places.values()
    }
    of_methods = {place for place in here if not place.startswith("reviews/")}
    general = {"/".join((place.partition("/")[0], place.rpartition("/")[2])) for place in of_methods}
    assert shipped(Path(bench.methods.__path__[0]) / "prompts") == (of_methods | general) - NOT_GENERAL
    assert shipped(Path(bench.tasks.__path__[0]) / "prompts" / "reviews") == {"block", "given", "instruction"}


@pytest.mark.parametrize(
    ("method", "options", "names"),
    [
        ("copy", {}, set()),
        ("nonperso", {}, {"write"}),
        ("pplug", {}, {"write"}),
        ("e2p", {}, {"write"}),
        ("rag", {}, {"write", "block"}),
        ("prompt_tuning", {}, {"write", "block"}),
        ("pag", {}, {"profile", "write", "block"}),
        ("dpl", {}, {"difference", "peer", "item", "profile", "write", "block"}),
        ("drp", {}, {"difference", "validate", "peer", "item", "profile", "write", "block"}),
        ("drp", {"differences": "raw"}, {"difference", "peer", "item", "profile", "write", "block"}),
        ("dep", {}, {"write", "block", "his", "diff", "guidance"}),
        ("dep", {"guidance": False}, {"write", "block", "his", "diff"}),
        ("dep", {"text": False}, {"write", "block_without_text", "his", "diff", "guidance"}),
        ("dep", {"embeddings": "his"}, {"write", "block", "his", "guidance"}),
        ("dep", {"embeddings": "diff"}, {"write", "block", "diff", "guidance"}),
        (
            "dep",
            {"layout": "released"},
            {"released", "released_block", "released_his", "released_diff", "guidance"},
        ),
        ("dpl", {"item_descriptions": True}, {"difference", "peer", "described_item", "profile", "write", "block"}),
    ],
)
def test_the_templates_of_a_method_are_those_that_it_renders(
    method: str, options: dict[str, object], names: set[str]
) -> None:
    found = load(method, **options)
    assert set(found.texts) == set(found.places) == set(found.fingerprint) == names


def test_an_unknown_template() -> None:
    with pytest.raises(
        ConfigError,
        match=r"there is no prompt template 'x' for this method and task; there are: rag/reviews/write, reviews/block",
    ):
        load("rag").render("x", VALUES)
    with pytest.raises(ConfigError, match=r"there is no prompt template 'write' .*; there are: none"):
        load("copy").part("write", VALUES)


def test_a_part_is_no_prompt() -> None:
    with pytest.raises(ConfigError, match=r"prompt reviews/block: the file needs '=== system' as its first line"):
        load("rag").render("block", BLOCK)


# -- one's own wording -------------------------------------------------------------------------------------------


def test_own_wording_that_is_not_rendered_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, "dep/reviews/write", "=== system\nS\n=== user\n{{history}}\n")
    write(folder, "reviews/block", "{{text}}")
    load("dep", folder)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        load("dep", folder, layout="released")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "prompts: with these options dep does not render reviews/block, dep/reviews/write of" in said[0]
    assert "but guidance, released, released_block, released_diff, released_his" in said[0]


def test_a_blank_line_at_the_end_of_a_part_ends_its_text_with_a_new_line(tmp_path: Path) -> None:
    plain = load("rag", write(tmp_path / "plain", "rag/write", "=== system\nS\n=== user\n{{history}}\n"))
    spaced = load("rag", write(tmp_path / "spaced", "rag/write", "=== system\nS\n\n=== user\n{{history}}\n\n"))
    assert plain.render("write", {"history": "H"}) == ("S", "H")
    assert spaced.render("write", {"history": "H"}) == ("S\n", "H\n")


def test_a_byte_order_mark_is_not_part_of_a_template(tmp_path: Path) -> None:
    text = "=== system\nS\n=== user\n{{history}}"
    assert load("rag", write(tmp_path, "rag/write", f"\ufeff{text}")).texts["write"] == text


def test_own_wording_replaces_one_template_and_its_hash_alone(tmp_path: Path) -> None:
    text = "=== system\nWrite.\n=== user\n{{item_title}}\n=== user\nmore"
    found, usual = load("pag", write(tmp_path, "pag/write", text)), load("pag")
    assert found.render("write", VALUES) == ("Write.", "Red Kite\n=== user\nmore")
    assert found.render("profile", VALUES) == usual.render("profile", VALUES)
    assert load("rag", tmp_path) == load("rag")
    changed = {name for name, digest in found.fingerprint.items() if digest != usual.fingerprint[name]}
    assert changed == {"write"}


def test_the_same_wording_elsewhere_has_the_same_hash(tmp_path: Path) -> None:
    write(tmp_path, "rag/write", load("rag").texts["write"] + "\n")
    assert load("rag", tmp_path).places["write"] == "rag/write"
    assert load("rag", tmp_path).fingerprint == load("rag").fingerprint


def test_a_part_of_the_task_counts_where_a_prompt_takes_it_in(tmp_path: Path) -> None:
    write(tmp_path, "reviews/given", "About {{item_title}}.")
    assert load("rag", tmp_path) == load("rag")
    write(tmp_path, "rag/write", "=== system\nS\n=== user\n{{given}}")
    found = load("rag", tmp_path)
    assert set(found.texts) == {"write", "given"}
    assert found.part("given", GIVEN) == "About Red Kite."


PLACES = (
    ("user", "writer/notes/block"),
    ("user", "writer/block"),
    ("user", "notes/block"),
    ("method", "writer/notes/block"),
    ("method", "writer/block"),
    ("task", "notes/block"),
)
"""Where a template may lie, the first that is there counts."""


@dataclass(frozen=True)
class Notes:
    """A small task: users who note something about a place."""

    target: ClassVar[str] = "note"
    grouped: ClassVar[bool] = True
    timed: ClassVar[bool] = True
    long_fields: ClassVar[tuple[str, ...]] = ("place",)
    metrics: ClassVar[tuple[str, ...]] = ("rouge",)
    max_new_tokens: ClassVar[int] = 16

    def query(self, instance: Instance) -> str:
        return str(instance.given["place"])

    def document(self, record: Record) -> str:
        return str(record.fields["place"])

    def about(self, instance: Instance) -> str:
        return self.query(instance)

    def shown(self, instance: Instance) -> Mapping[str, str]:
        return {"Place": self.query(instance)}

    def shown_record(self, record: Record) -> Mapping[str, str]:
        return {"Place": self.document(record)}


@dataclass(frozen=True)
class Writer:
    """A method whose templates a test lays where it likes."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)

    def steps(self) -> None: ...


@pytest.fixture
def plugins(tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of method "writer" in `method`, of task "notes" in `task`, and a user's in `user`."""
    register("methods", "writer", laid(Writer, tmp_path / "method", monkeypatch))
    register("tasks", "notes", laid(Notes, tmp_path / "task", monkeypatch))
    write(tmp_path / "method" / "prompts", "writer/write", "=== system\nS\n=== user\n{{history}}")
    return tmp_path


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_order_of_the_places(first: int, plugins: Path) -> None:
    for owner, place in PLACES[first:]:
        write(plugins / owner if owner == "user" else plugins / owner / "prompts", place, f"{owner}'s {place}")
    user = plugins / "user" if (plugins / "user").exists() else None
    found = templates.load(Writer(), "writer", Notes(), "notes", user)
    owner, place = PLACES[first]
    assert found.part("block", {}) == f"{owner}'s {place}"
    assert found.places == {"write": "writer/write", "block": place}


@dataclass(frozen=True)
class Echo:
    """A method that writes as RAG does."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=True, embedded=False, inter_user=False)
    prompts_of: ClassVar[str] = "rag"

    def steps(self) -> None: ...


def test_a_method_with_the_templates_of_another(tmp_path: Path, register: Register) -> None:
    register("methods", "echo", Echo)
    assert load("echo") == load("rag")
    write(tmp_path, "rag/write", "=== system\nS\n=== user\nboth {{history}}")
    assert load("echo", tmp_path) == load("rag", tmp_path)
    assert load("echo", tmp_path).render("write", VALUES) == ("S", "both HISTORY")
    write(tmp_path, "echo/write", "=== system\nS\n=== user\nechoes {{history}}")
    assert load("echo", tmp_path).render("write", VALUES) == ("S", "echoes HISTORY")
    assert load("rag", tmp_path).render("write", VALUES) == ("S", "both HISTORY")


def test_a_method_with_the_templates_of_none(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register("methods", "echo", Echo)
    monkeypatch.setattr(Echo, "prompts_of", "rga")
    with pytest.raises(PluginError, match=r"there is no method 'rga'; did you mean 'rag'\?"):
        load("echo")


@pytest.mark.parametrize(
    ("method", "place", "text", "message"),
    [
        ("rag", "rag_review", "x", r"rag_review\.txt replaces no template\. Its place is METHOD/NAME\.txt"),
        ("rag", "rga/write", "x", r"rga/write\.txt replaces no template; did you mean 'rag'\? Its place is"),
        ("rag", "rag/reveiws/write", "x", r"write\.txt replaces no template; did you mean 'reviews'\? Its place is"),
        ("rag", "rag/reviews/more/write", "x", r"write\.txt replaces no template.* Its place is"),
        ("rag", "reviews/rag/write", "x", r"write\.txt replaces no template\. Its place is"),
        ("rag", "rag/wirte", "x", r"rag/wirte\.txt replaces no template; did you mean 'write'\? There are: block, "),
        ("pag", "pag/reviews/profiel", "x", r"profiel\.txt replaces no template; did you mean 'profile'\? There are"),
        ("rag", "reviews/blok", "x", r"blok\.txt replaces no template; .*'block'\? There are: block, given, instruct"),
        ("rag", "reviews/write", "x", r"write\.txt replaces no template\. There are: block, given, instruction$"),
        ("pag", "pag/write", "Write a review.", r"pag/write\.txt: the file needs '=== system' as its first line"),
        ("pag", "pag/reviews/write", "=== system\nx", "the file needs '=== system' as its first line"),
        ("pag", "pag/write", "=== system\nx\n=== user\n{{sumary}}", r"no value \{\{sumary\}\}; there are: .*summary"),
        ("rag", "rag/write", "=== system\nx\n=== user\n{{summary}}", r"no value \{\{summary\}\}; there are: given, "),
        ("rag", "reviews/block", "{{text}} {{stars}}", r"no value \{\{stars\}\}; there are: .*rating"),
        ("rag", "rag/block", "{{text}} {{stars}}", r"no value \{\{stars\}\}; there are: .*rating"),
        ("rag", "reviews/block", "{{output_title}}", r"there is no value \{\{output_title\}\}"),
        ("dep", "dep/guidance", "{{output_title}}", r"there is no value \{\{output_title\}\}"),
        ("rag", "rag/write", "=== system\nx\n=== user\n{{#histori}}y{{/histori}}", r"no value \{\{histori\}\}; there"),
        ("rag", "rag/write", "=== system\nx\n=== user\n{{#history}}{{history}}", r"\{\{#history\}\} stands alone; a"),
        ("rag", "rag/write", "=== system\n{{/given}}\n=== user\nx", r"\{\{/given\}\} stands alone; a section begins"),
        ("rag", "reviews/given", "{{summary}}", r"no value \{\{summary\}\}; there are: item_description, item_title"),
        ("rag", "reviews/given", "{{history}}", r"no value \{\{history\}\}"),
        ("rag", "reviews/instruction", "{{item_title}}", r"no value \{\{item_title\}\}; it can have none"),
    ],
)
def test_own_wording_that_could_fail_late_is_refused_at_once(
    method: str, place: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(method, write(tmp_path, place, text))
    assert str(caught.value).startswith(f"prompts: {tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_pipe_among_own_templates_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "rag").mkdir()
    os.mkfifo(tmp_path / "rag" / "write.txt")
    with pytest.raises(ConfigError, match=r"write\.txt is not a file"):
        load("rag", tmp_path)


@pytest.mark.parametrize(
    ("method", "place", "text"),
    [
        ("rag", "rag/write", "=== system\n{{instruction}}\n=== user\n{{given}} {{history}} {{output_title}}"),
        ("rag", "reviews/block", "{{number}} {{index}} {{text}}"),
        ("rag", "rag/reviews/block", "{{rating}} {{text}}"),
        ("rag", "reviews/given", "{{output_rating}}"),
        ("rag", "pag/write", "=== system\nS\n=== user\n{{summary}}"),
    ],
)
def test_own_wording_that_is_taken(method: str, place: str, text: str, tmp_path: Path) -> None:
    found = load(method, write(tmp_path, place, text))
    name = place.rpartition("/")[2]
    if name in found and place.startswith((method, "reviews")):
        assert (found.texts[name], found.places[name]) == (text, place)
    else:
        assert found == load(method)


def test_a_task_without_a_part_has_no_value_for_it(plugins: Path) -> None:
    write(plugins / "task" / "prompts", "notes/block", "{{text}}")
    write(plugins / "user", "writer/write", "=== system\nS\n=== user\n{{given}} {{history}}")
    with pytest.raises(ConfigError, match=r"there is no value \{\{given\}\}; there are: history$"):
        templates.load(Writer(), "writer", Notes(), "notes", plugins / "user")


def test_a_folder_without_templates(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"is not a folder of templates; it needs METHOD/NAME\.txt, e\.g\. rag/"):
            load("rag", folder)


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "reviews/block", "")
    (tmp_path / "reviews" / "block.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load("rag", tmp_path)


# -- the general templates, for a task that has none of its own ----------------------------------------------------

HERE = {
    "notes/block": "{{number}}. {{place}}: {{text}}",
    "notes/given": "[Place]: {{place}}",
    "notes/instruction": "Write a note about a place.",
}


def note(user: str, place: str, time: int) -> Record:
    return Record(user, f"{user} was at {place}", {"place": place}, place, time)


def noter(user: str, places: Sequence[str]) -> Instance:
    profile = tuple(note(user, place, time) for time, place in enumerate(places))
    return Instance(f"c/test/{user}", "c", "test", user, {"place": "the sea"}, profile, "the sea", 99)


def vectors(texts: Sequence[str], encoder: str) -> NDArray[np.float32]:
    return np.stack([np.random.default_rng(derive_seed(text)).normal(size=4) for text in texts]).astype(np.float32)


def prompts(name: str, chat: Chat) -> list[Prompt]:
    """All prompts of a method for a user who noted two places, of whom four others noted the second."""
    method = registry.create("methods", name, {})
    me = noter("me", ["the hill", "the inn"])
    corpus = Corpus("c", {"test": (me, *(noter(user, ["the inn"]) for user in "abcd"))}, {})
    corpus = Corpus("c", corpus.instances, {one.id: f"to predict {one.user_id}" for one in corpus.split("test")})
    here = Context(
        task=Notes(),
        corpus=corpus,
        method=name,
        templates=templates.load(method, name, registry.create("tasks", "notes", {}), "notes"),
        chat=chat,
        retriever=registry.create("retrievers", "recency", {}),
        k=8,
        input_budget=4096,
        run_seed=0,
        embedder=vectors,
        marks=getattr(method, "marks", ()),
        pool=Peers(corpus),
    )
    steps = method.steps(me, here)
    asked: list[Prompt] = list(next(steps))
    new = asked
    while True:
        try:
            new = list(steps.send([f"answer {n}" for n, _ in enumerate(new)]))
        except StopIteration:
            return asked
        asked += new


@pytest.fixture
def notes(plugins: Path) -> Path:
    for place, text in HERE.items():
        write(plugins / "task" / "prompts", place, text)
    return plugins


STAGES = {
    "nonperso": ["nonperso_note"],
    "rag": ["rag_note"],
    "pag": ["pag_profile", "pag_note"],
    "dpl": ["dpl_difference", "dpl_profile", "dpl_note"],
    "drp": ["drp_difference", "drp_validate", "drp_profile", "drp_note"],
    "dep": ["dep_note"],
    "pplug": ["pplug_note"],
    "e2p": ["e2p_note"],
    "prompt_tuning": ["prompt_tuning_note"],
}


def test_every_built_in_method_is_tried() -> None:
    assert {*STAGES, "copy"} == set(registry.builtin_names("methods"))


@pytest.mark.parametrize("name", sorted(STAGES))
def test_the_general_templates_render_for_any_task(name: str, notes: Path, tiny_qwen2: Path) -> None:
    asked = prompts(name, Chat(str(tiny_qwen2)))
    assert [prompt.stage for prompt in asked] == STAGES[name]
    for prompt in asked:
        assert "{{" not in prompt.system + prompt.user
        assert "eview" not in (prompt.system + prompt.user).replace("[Review Embedding]", "").replace(
            "[Review Difference Embedding]", ""
        )
    writing = asked[-1]
    assert writing.system.startswith("Write a note about a place.")
    assert "[Place]: the sea" in writing.user.splitlines()
    history = "1. the inn: me was at the inn"
    retrieves = registry.load("methods", name).properties.retrieval_augmented
    assert (history in writing.user.splitlines()) == retrieves
    assert writing.blocks_shown == (2 if retrieves else 0)


def test_the_general_rag_prompt_word_for_word(notes: Path, tiny_qwen2: Path) -> None:
    (prompt,) = prompts("rag", Chat(str(tiny_qwen2)))
    assert prompt.system == (
        "Write a note about a place. What the user wrote before is given; write as this user would."
    )
    assert prompt.user == (
        "[Written by the User]:\n1. the inn: me was at the inn\n2. the hill: me was at the hill\n[Place]: the sea"
    )


def test_the_general_dpl_compares_texts_word_for_word(notes: Path, tiny_qwen2: Path) -> None:
    difference, profile, writing = prompts("dpl", Chat(str(tiny_qwen2)))
    own, _, others = difference.user.partition("\n[Others' Texts]:\n")
    assert own == "[User's Text]:\nme was at the inn"
    assert sorted(line.partition(": ")[2] for line in others.splitlines()) == [f"{u} was at the inn" for u in "abcd"]
    assert profile.user.startswith(
        "[Differences]:\n- [Text]: me was at the inn\n- [Difference]: answer 0\n[Written by the User]:\n1. the inn"
    )
    assert writing.user.splitlines()[-2:] == ["[User Profile]: answer 0", "[Place]: the sea"]
