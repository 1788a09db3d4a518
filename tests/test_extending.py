"""What a package beside bench can add, each shown end to end: `plugin_example`, which knows bench's public modules and
changes nothing in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench
from bench import registry
from bench.chat import Chat
from bench.cli import main
from bench.errors import ConfigError, DataError
from bench.results import Prediction, RunRecord, rows_of

EXAMPLE = Path(__file__).parent / "plugin_example"

pytestmark = pytest.mark.usefixtures("example")


def predictions(results: Path, name: str) -> dict[str, str]:
    """The texts of a run by instance."""
    return {row.instance: row.prediction for row in rows_of(Prediction, results / "runs" / name / "predictions.jsonl")}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where the shop's configuration keeps results."""
    return tmp_path / "results"


# An installed package


def test_an_installed_package_is_used_by_a_process(tmp_path: Path, shop_config: Path, scripted: Any) -> None:
    """pip builds the package, templates included; a process of its own finds and uses it."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, *options, str(source)], check=True, timeout=120)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "bench.cli", *arguments]
        environment = os.environ | {"PYTHONPATH": str(site)}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout

    assert [line.split()[0] for line in run("list", "methods").splitlines()][-2:] == ["lyrebird", "parrot"]
    printed = run("run", "--config", str(shop_config), "--method", "parrot", "--limit", "1", "--set", "metrics=[size]")
    assert "Size" in printed
    assert "1 calls, 7 prompt and 3 generated tokens" in printed


@pytest.mark.parametrize("group", registry.GROUPS)
def test_listed_after_what_is_bench_s_own(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = {
        "methods": ["lyrebird", "parrot"],
        "retrievers": ["oldest"],
        "metrics": ["size"],
        "tasks": ["headline"],
        "layouts": ["newsroom"],
        "backends": ["scripted", "several", "stand_in"],
    }[group]
    assert main(["list", group]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*registry.builtin_names(group), *own]


# A method


def test_a_method_with_templates_of_its_own(shop_config: Path, results: Path, scripted: Any) -> None:
    summary = bench.run("parrot", shop_config, retriever="oldest", k=1, parrot={"shout": True})
    prompt = scripted.calls[0].prompt
    assert prompt.stage == "parrot_review"
    assert prompt.system.startswith("Repeat after the user. Given the title and description of an item,")
    assert prompt.user.startswith("The user said:\n- [Review 1]:\n- [Item Title]: Red Kite\n")
    texts = predictions(results, summary.name)
    assert texts["Toys/test/u1"] == "UP IT WENT, {{SUMMARY}} AND ALL. answer parrot_review Toys/test/u1"
    record = RunRecord.read(results / "runs" / summary.name / "run.json")
    assert record.identity["method_options"] == {"shout": True}


def test_its_templates_are_part_of_the_run_and_can_be_replaced(
    shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = bench.run("parrot", shop_config)
    other = tmp_path / "prompts" / "parrot"
    other.mkdir(parents=True)
    (other / "write.txt").write_text("=== system\nSquawk.\n=== user\n{{history}}\n{{given}}\n")
    second = bench.run("parrot", shop_config, prompts=str(tmp_path / "prompts"))
    assert first.name != second.name
    assert scripted.calls[-1].prompt.system == "Squawk."
    (other / "wirte.txt").write_text("x")
    arguments = ["run", "--config", str(shop_config), "--method", "parrot"]
    assert main([*arguments, "--set", f"prompts={tmp_path / 'prompts'}"]) == 2
    assert "wirte.txt replaces no template; did you mean 'write'?" in capsys.readouterr().err


def test_a_method_with_marks_and_an_adapter(
    shop_config: Path, results: Path, tiny_qwen2: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its vector is trained, chosen on the validation subset and put between its marks."""
    settings = ["--set", "metrics=[size]", "--set", "train.select_by=size", "--set", "train.epochs=2"]
    arguments = ["--config", str(shop_config), "--method", "lyrebird", *settings]
    assert main(["train", *arguments]) == 0
    folder = Path(capsys.readouterr().out.removeprefix("kept in ").strip())
    assert folder.parent == results / "adapters"
    assert (folder / "epoch-2.safetensors").exists()
    scripted.calls.clear()
    assert main(["run", *arguments]) == 0
    call = scripted.calls[0]
    assert call.prompt.user.startswith("<song_start>[SONG_TOKEN_0]<song_end>\n[Item Title]: Old Map\n")
    assert call.prompt.slots == ("[SONG_TOKEN_0]",)
    assert call.vectors.shape == (1, 128)
    # Each mark is one token, beyond those of the model's tokenizer.
    chat = Chat(str(tiny_qwen2))
    ids = chat.ids(call.prompt)
    (place,) = chat.positions(call.prompt, ids)
    start, slot, end = ids[place - 1 : place + 2]
    assert len({start, slot, end}) == 3
    assert min(start, slot, end) > max(ids[: place - 1])


# A retriever


def test_a_retriever(shop_config: Path, scripted: Any) -> None:
    summary = bench.run("rag", shop_config, retriever="oldest", k=1)
    assert summary.name.startswith("rag-oldest-k1-shop-")
    users = [call.prompt.user for call in scripted.calls]
    assert "Red Kite" in users[0]
    assert "Green Drum" not in users[0]


# A metric of which less is better


@pytest.fixture
def sizes(shop_config: Path, tmp_path: Path, scripted: Any) -> Path:
    """An experiment of three methods whose texts have 3, 3 and up to 9 words."""
    rows = [{"label": name, "set": {"method": name}} for name in ("rag", "copy", "parrot")]
    groups = [{"name": "", "ranked": True, "rows": rows}]
    path = tmp_path / "sizes.yaml"
    path.write_text(yaml.safe_dump({"title": "Sizes", "columns": ["size", "rouge1"], "groups": groups}))
    return path


def test_the_least_is_bold(sizes: Path, shop_config: Path, results: Path) -> None:
    text = bench.table(str(sizes), shop_config, metrics=["size", "rouge"])
    assert "Size" in text
    means = bench.scores(results).query("score == 'size'").groupby("method")["value"].mean()
    assert means["parrot"] == means.max() > means.min() == means["rag"]
    markdown = (results / "tables" / "sizes-shop.md").read_text(encoding="utf-8")
    cells = {row.split("|")[1].strip(): row.split("|")[2] for row in markdown.splitlines() if row.startswith("| ")}
    assert f"**{means['rag']:.1f}**" in cells["rag"]
    assert "**" not in cells["parrot"]
    assert "Size ↓" in markdown


def many(tmp_path: Path, shop: Path) -> Path:
    """The shop with 24 test users more, so that a difference can be told from chance."""
    folder = tmp_path / "many"
    shutil.copytree(shop, folder)
    path = folder / "main" / "Toys" / "test.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    rows = [first | {"user_id": f"v{number}"} for number in range(24)]
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_what_is_larger_is_marked_as_significantly_worse(
    sizes: Path, shop_config: Path, shop: Path, tmp_path: Path, results: Path
) -> None:
    data = many(tmp_path, shop)
    bench.table(str(sizes), shop_config, significance=True, dataset=str(data), metrics=["size", "rouge"])
    markdown = (results / "tables" / "sizes-shop-many.md").read_text(encoding="utf-8")
    cells = {row.split("|")[1].strip(): row.split("|")[2] for row in markdown.splitlines() if row.startswith("| ")}
    assert "†" in cells["parrot"]
    assert "†" not in cells["rag"]


def test_drift_says_which_way(
    shop_config: Path, shop: Path, tmp_path: Path, results: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"dataset": str(many(tmp_path, shop)), "metrics": ["size"]}
    short, long = (bench.run("rag", shop_config, scripted={"text": text}, **common) for text in ("a", "a b c"))
    places = ["--results", str(results), "--goldens", str(results / "golden")]
    for was, now, verdict in ((short, long, "worse"), (long, short, "better")):
        assert main(["bless", was.name, "--name", verdict, *places]) == 0
        assert main(["check", now.name, "--against", verdict, *places]) == 1
        assert f"standard errors, {verdict})" in capsys.readouterr().out


def test_compare_says_that_less_is_better(
    shop_config: Path, results: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("a", "a b c"):
        bench.run("rag", shop_config, metrics=["size"], scripted={"text": text}, notes=[text])
    a, b = bench.runs(results)["run"]
    assert main(["compare", a, b, "--results", str(results)]) == 0
    assert "Size ↓" in capsys.readouterr().out


# A layout and a task

DESK = {
    "ann": [["Rain!", "It rained."], ["Sun!", "The sun shone."], ["Fog!", "Nobody saw anything."], ["Hail!", "Ice."]],
    "bob": [["On rain", "It rained."], ["On wind", "Trees fell."], ["On snow", "Snow lay."]],
}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A data set of headlines: ann has three past ones in the test split, bob two."""
    folder = tmp_path / "desk"
    folder.mkdir()
    rows = [json.dumps({"name": name, "work": work}) for name, work in DESK.items()]
    (folder / "Weather.newsroom").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def headlines(desk: Path, shop_config: Path, scripted: Any) -> Path:
    """The shop's configuration, of headlines instead."""
    settings = yaml.safe_load(shop_config.read_text())
    settings |= {"task": "headline", "dataset": str(desk), "retriever": "oldest", "metrics": ["rouge", "size"]}
    shop_config.write_text(yaml.safe_dump(settings))
    return shop_config


GENERAL = {"nonperso": "", "rag": "What the user wrote before is given", "pag": "What the user wrote before and a"}


@pytest.mark.parametrize("method", ["nonperso", "rag", "pag", "copy", "parrot"])
def test_a_task_with_the_methods_that_there_are(method: str, headlines: Path, results: Path, scripted: Any) -> None:
    summary = bench.run(method, headlines)
    assert summary.instances == {"Weather": 2}
    texts = predictions(results, summary.name)
    if method == "copy":
        assert scripted.calls == []
        assert texts == {"Weather/test/ann": "Fog!", "Weather/test/bob": "On wind"}
        return
    (last,) = (call.prompt for call in scripted.calls if call.key == ("Weather/test/ann", f"{method}_headline", 0))
    assert last.user.endswith("[Article]: Ice.")
    if method == "parrot":
        # A method's template for the task goes before the one for any task.
        assert last.system == "Squawk the headline of the article."
        assert texts["Weather/test/ann"] == "Rain! answer parrot_headline Weather/test/ann"
    else:
        assert last.system.startswith(f"Write the headline of the article. {GENERAL[method]}".strip())
        assert texts["Weather/test/ann"] == f"answer {method}_headline Weather/test/ann"
    if method != "nonperso":
        assert "- [Headline 1]: Rain!\n- [Article]: It rained.\n- [Headline 2]: Sun!" in last.user
    # No text that is to be written, and no word of reviews.
    assert not any("Hail!" in call.prompt.user or "review" in call.prompt.system.lower() for call in scripted.calls)
    assert {call.max_new_tokens for call in scripted.calls} == {8}


def test_a_task_s_own_defaults(desk: Path, tiny_qwen2: Path, tmp_path: Path, scripted: Any) -> None:
    settings = {"task": "headline", "dataset": str(desk), "retriever": "bm25", "backend": "scripted"}
    settings |= {"model": str(tiny_qwen2), "resamples": 10, "results": str(tmp_path / "results")}
    summary = bench.run("rag", settings)
    assert list(summary.signatures) == ["rouge"]
    assert {call.max_new_tokens for call in scripted.calls} == {16}


def test_what_a_person_sees_of_it(headlines: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run("rag", headlines)
    assert main(["show", "rag", "--instance", "ann", "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "Article: Ice." in printed
    assert "Article: It rained." in printed
    assert main(["report", "--results", str(results)]) == 0
    assert main(["run", "--config", str(headlines), "--method", "pag", "--dry-run"]) == 0
    assert "=== pag_headline: the first of 2 prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--method", "dep"], "method dep compares users by what they wrote of the same thing, and the data of task"),
        (["--method", "dpl"], "method dpl compares users by what they wrote of the same thing, and the data of task"),
        (["--method", "rag", "--retriever", "recency"], "retriever recency needs times, which the data of task"),
        (["--method", "rag", "--task", "reviews"], "is of task headline, not reviews"),
        (["--method", "rag", "--dataset", "demo"], "data set demo is of task reviews, not headline"),
        (["--method", "rag", "--task", "headlines"], "there is no task 'headlines'; did you mean 'headline'?"),
    ],
)
def test_what_the_task_cannot_have_is_one_line(
    settings: list[str],
    message: str,
    headlines: Path,
    results: Path,
    scripted: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "--config", str(headlines), *settings]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert message in printed.err
    assert scripted.calls == []
    assert not (results / "runs").exists()


def test_data_that_a_layout_refuses(desk: Path, headlines: Path) -> None:
    (desk / "Weather.newsroom").write_text(json.dumps({"name": "cat", "work": [["a", "b"]]}) + "\n")
    with pytest.raises(DataError, match="cat has 1 headlines"):
        bench.run("copy", headlines)


def test_the_sizes_of_such_data(desk: Path, headlines: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", str(desk), "--config", str(headlines), "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    (test,) = (line.split() for line in printed.splitlines() if line.startswith("Test: Weather"))
    assert test[2] == "2"
    assert "2.50" in test


# A backend


def test_a_backend_with_settings(shop_config: Path, results: Path, scripted: Any) -> None:
    plain = bench.run("nonperso", shop_config)
    told = bench.run("nonperso", shop_config, scripted={"text": "Lovely, {instance}."})
    assert plain.name != told.name
    assert predictions(results, told.name)["Toys/test/u2"] == "Lovely, Toys/test/u2."
    record = RunRecord.read(results / "runs" / told.name / "run.json")
    assert record.device == "a script"
    with pytest.raises(ConfigError, match=r"'scripted\.txet' is not a configuration key; did you mean 'text'\?"):
        bench.run("nonperso", shop_config, scripted={"txet": "x"})
