"""The commands as their user meets them: what they print, what they import, how they fail."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from bench import registry
from bench.cli import main
from bench.config import build, read_config
from bench.data.load import load
from bench.models import local_folder
from bench.protocols import Properties, Steps
from bench.resolved import Run
from bench.results import Prediction, RunRecord, Summary, rows_of

HEAVY = (
    "torch",
    "vllm",
    "transformers",
    "nltk",
    "faiss",
    "sacrebleu",
    "datasets",
    "sklearn",
    "polars",
    "openai",
    "duckdb",
    "pandas",
    "matplotlib",
)
LISTS = ("methods", "retrievers", "metrics", "tasks", "backends", "layouts", "configs", "experiments", "runs")


def loaded(code: str, *arguments: str) -> list[str]:
    """The modules that a fresh process has imported after some code."""
    code = f"import sys\n{code}\nprint('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("loaded:")[2].split()


def heavy(modules: list[str]) -> list[str]:
    return [name for name in modules if name.partition(".")[0] in HEAVY]


COMMAND = """
import bench.cli
try:
    assert bench.cli.main(sys.argv[1:]) == 0
except SystemExit as stop:
    assert not stop.code
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], *(["list", what] for what in LISTS)], ids=" ".join
)
def test_help_and_list_import_nothing_heavy(arguments: list[str]) -> None:
    modules = loaded(COMMAND, *arguments)
    assert "bench.commands.list" in modules
    assert heavy(modules) == []
    plugins = ("bench.methods.", "bench.retrievers.", "bench.metrics.", "bench.tasks.", "bench.backends.")
    assert [name for name in modules if name.startswith(plugins)] == []


def test_what_computes_nothing_imports_nothing_heavy(shop_config: Path) -> None:
    rows = [{"label": f"Copy {seed}", "set": {"method": "copy", "seed": seed}} for seed in (0, 1)]
    experiment = {"title": "Two", "columns": ["METEOR", "R-L"], "groups": [{"name": "", "ranked": True, "rows": rows}]}
    table = shop_config.with_name("two.yaml")
    table.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    settings = yaml.safe_load(shop_config.read_text(encoding="utf-8")) | {"metrics": ["rouge", "meteor", "bleu"]}
    shop_config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    make_table = ["table", str(table), "--config", str(shop_config)]
    assert main(make_table) == 0
    results = ["--results", settings["results"]]
    for arguments in (
        make_table,
        ["list", "runs", *results],
        ["show", "seed0", *results],
        ["compare", "seed0", "seed1", *results],
        ["report", *results],
        ["doctor"],
    ):
        assert [name for name in heavy(loaded(COMMAND, *arguments)) if name != "polars"] == [], arguments


def test_the_configuration_of_rag_imports_nothing_heavy() -> None:
    code = "from bench.config import build, read_config\nbuild(read_config('demo'), {'method': 'rag'})"
    modules = loaded(code)
    assert "bench.tasks.reviews" in modules
    assert heavy(modules) == []


def processor_seconds(folder: Path, *arguments: str) -> float:
    """What a fresh process takes of a processor, which other work on the machine hardly changes; modules are compiled
    once, as they are for a user."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], *(["list", what] for what in LISTS)], ids=" ".join)
def test_help_and_list_are_quick(arguments: list[str], tmp_path: Path) -> None:
    """0.3 s; on a machine that is slow or busy, three times what two small packages take that everybody imports."""
    usual, command = ("-c", "import pydantic, yaml"), ("-m", "bench.cli", *arguments)
    for compiled in (usual, command):
        processor_seconds(tmp_path, *compiled)
    best = math.inf
    for _ in range(10):
        allowed = max(0.3, 3 * processor_seconds(tmp_path, *usual))
        best = min(best, processor_seconds(tmp_path, *command) / allowed)
        if best < 1:
            return
    pytest.fail(f"took {best:.2f} times what is allowed")


def bad_inputs() -> Iterator[Any]:
    run = ["run", "--config", "CONFIG", "--method", "rag"]
    yield "unknown method", [*run[:-1], "raag"], "there is no method 'raag'; did you mean 'rag'? There are: copy, "
    yield "unknown retriever", [*run, "--retriever", "bm52"], "there is no retriever 'bm52'; did you mean 'bm25'?"
    yield "unknown task", [*run, "--task", "review"], "there is no task 'review'; did you mean 'reviews'? There are: "
    yield "unknown backend", [*run, "--backend", "vlm"], "there is no backend 'vlm'; did you mean 'vllm'? There are: "
    yield (
        "unknown backend without a call",
        ["run", "--config", "CONFIG", "--method", "copy", "--backend", "vlm"],
        "'vllm'?",
    )
    yield "unknown metric", [*run, "--set", "metrics=[ruge]"], "there is no metric 'ruge'; did you mean 'rouge'?"
    yield "misspelt key", [*run, "--set", "temprature=1"], "did you mean 'temperature'?"
    yield "misspelt section key", [*run, "--set", "vllm.dtyp=auto"], "did you mean 'dtype'?"
    yield "misspelt option", [*run, "--set", "meteor.tokeniser=treebank"], "did you mean 'tokenizer'?"
    yield "bad option", [*run, "--set", "meteor.tokenizer=x"], "meteor.tokenizer: must be 'word_tokenize' or"
    yield "no value", [*run, "--set", "k"], "--set k: write it as key=value"
    yield "limit 0", [*run, "--limit", "0"], "limit: must be at least 1"
    yield "seed -1", [*run, "--seed", "-1"], "seed: must be at least 0"
    yield "unknown config", ["run", "--method", "rag", "--config", "dmeo"], "'dmeo'; did you mean 'demo'? Shipped: "
    yield "corrupt config", ["run", "--method", "rag", "--config", "CORRUPT"], "cannot be read as YAML"
    yield "config is a folder", ["run", "--method", "rag", "--config", "EMPTY"], "is not a file of settings"
    for path in ("PIPE", "/dev/zero"):
        yield f"config {path}", ["run", "--method", "rag", "--config", path], "is not a file of settings"
        yield f"experiment {path}", ["table", path], "is not a file of an experiment"
        yield f"timing {path}", ["check", "--timing", path, path], "is not a file"
    nobody = "this machine knows no home folder ~nosuchuser"
    for setting in ("results", "dataset", "model", "tokenizer", "prompts", "adapter", "dep.encoder"):
        yield f"nobody's {setting}", [*run, "--set", f"{setting}=~nosuchuser/x", "--set", "method=dep"], nobody
    for command in (
        ["list", "runs"],
        ["show", "x"],
        ["compare", "a", "b"],
        ["report"],
        ["data", "stats"],
        ["bless", "x"],
    ):
        yield f"nobody's results for {command[0]}", [*command, "--results", "~nosuchuser"], nobody
    yield "nobody's goldens", ["check", "--goldens", "~nosuchuser"], nobody
    yield "nobody's prompts", [*run, "--dry-run", "--prompts", "~nosuchuser/x"], nobody
    yield "nobody's page", ["report", "--out", "~nosuchuser/x"], nobody
    yield (
        "nobody's raw files",
        ["data", "prepare", *["--reviews", "~nosuchuser", "--items", "b", "--category", "c", "--out", "d"]],
        nobody,
    )
    yield "long name", [*run, "--dataset", "x" * 300], "is too long: a name has at most 255 bytes"
    yield "long path", ["list", "runs", "--results", "x/" * 3000], "is too long: a name has at most 255 bytes"
    yield "long run", ["show", "x" * 300], "bench show stopped: "
    yield "two lines", [*run, "--dataset", "a\nb"], r"there is no data set 'a\nb'"
    yield "no UTF-8", [*run, "--dataset", "a\udcff"], r"the argument a\udcff is not UTF-8 text"
    yield "no data set", [*run, "--dataset", ""], "a path must not be empty"
    yield "many seeds", ["table", "table1", "--seeds", "1000000"], "1,000,000 seeds of "
    yield "no instance to time", ["time", "--method", "rag", "--limit", "0"], "limit: must be at least 1, got 0"
    yield "unknown data set", [*run, "--dataset", "dmo"], "there is no data set 'dmo'; did you mean 'demo'?"
    yield "missing folder", [*run, "--dataset", "./nowhere"], "there is no data set './nowhere'"
    yield "folder without data", [*run, "--dataset", "EMPTY"], "holds no data set"
    yield "unknown category", [*run, "--set", "categories=[Toy]"], "has no category 'Toy'; did you mean 'Toys'?"
    yield "missing model", [*run, "--model", "./nowhere"], "neither a folder that exists nor a hub id"
    yield "empty model folder", [*run, "--model", "EMPTY"], "the tokenizer of"
    yield (
        "budget too small",
        [*run, "--set", "input_budget=9"],
        "input_budget=9 is too small for Toys/test/u1: the prompt rag_review",
    )
    yield "bad address", [*run, "--backend", "openai", "--base-url", "localhost"], "openai.base_url must be the address"
    address = ["--base-url", "http://127.0.0.1:9/v1"]
    yield "address without server", [*run, *address], "backend=scripted is not one: add --backend openai"
    yield (
        "address of the engine",
        [*run, "--backend", "vllm", *address],
        "backend=vllm is not one: add --backend openai",
    )
    yield "prompts folder", [*run, "--set", "prompts=EMPTY"], "is not a folder of templates"
    yield "unknown run", ["show", "rag", "--results", "EMPTY"], "no run in "
    yield "unknown experiment", ["table", "tabel1", "--config", "CONFIG"], "'tabel1'; did you mean 'table1'? Shipped: "
    yield "no seeds", ["table", "table1", "--config", "CONFIG", "--seeds", "0"], "0 seeds were asked for"
    yield "unknown run to compare", ["compare", "rag", "pag", "--results", "EMPTY"], "no run in "
    yield "unknown run to check", ["check", "rag", "--results", "EMPTY"], "no run in "
    yield "unknown run to bless", ["bless", "rag", "--results", "EMPTY"], "no run in "
    yield "nothing to report", ["report", "--results", "EMPTY"], "EMPTY"
    yield "unknown method to time", ["time", "--config", "CONFIG", "--method", "raag"], "did you mean 'rag'?"
    yield "a minimum without a run", ["check", "--minimum", "0.1"], "--minimum is for a run"
    yield "a factor without timings", ["check", "--factor", "2"], "--factor is for timings"
    yield "a run and timings", ["check", "x", "--timing", "a", "b"], "give a run or --timing OLD NEW, not both"
    yield "corrupt experiment", ["table", "CORRUPT", "--config", "CONFIG"], "cannot be read as YAML"
    yield (
        "no reviews",
        ["data", "prepare", *["--reviews", "no", "--items", "no", "--category", "C", "--out", "EMPTY/x"]],
        "no cannot",
    )
    yield "no data to describe", ["data", "stats", "EMPTY"], "holds no data set"


CASES = {name: (arguments, message) for name, arguments, message in bad_inputs()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_exit_code_2(
    name: str, shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = CASES[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt.yaml").write_text("k: [1")
    os.mkfifo(tmp_path / "fifo")
    places = {
        "CONFIG": shop_config,
        "EMPTY": tmp_path / "empty",
        "CORRUPT": tmp_path / "corrupt.yaml",
        "PIPE": tmp_path / "fifo",
    }
    for word, path in places.items():
        arguments = [argument.replace(word, str(path)) for argument in arguments]
        message = message.replace(word, str(path))
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bench: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert scripted.calls == []
    # Nothing is left behind that a later run could take for its own.
    assert list((tmp_path / "results").glob("runs/*/run.json")) == []


def test_the_real_program_fails_without_a_traceback(shop_config: Path) -> None:
    arguments = ["run", "--config", str(shop_config), "--method", "rag", "--set", "limt=2"]
    done = subprocess.run([sys.executable, "-m", "bench.cli", *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "bench: 'limt' is not a configuration key; did you mean 'limit'? Keys: task, method, "
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["run"], "the following arguments are required: --method"),
        (["run", "--method", "rag", "--limit", "many"], "argument --limit: invalid int value: 'many'"),
        (["list", "method"], "argument what: invalid choice: 'method'"),
    ],
)
def test_misuse_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_run_prints_scores_and_the_second_time_computes_nothing(
    shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(shop_config), "--method", "pag", "--limit", "2", "--seed", "7"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert len(scripted.calls) == 4
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert folder.name.startswith("pag-recency-k2-shop-qwen20-scripted-max_new_tokens8-first2-seed7-")
    lines = first.splitlines()
    assert lines[0] == folder.name
    assert re.split(r"  +", lines[1]) == ["score [95% interval]", "Toys (2)"]
    # Those that decide stand first.
    scores = Summary.read(folder / "summary.json").scores["Toys"]
    for line, (name, head) in zip(
        lines[3:6], (("rouge1", "R-1 (rouge1)"), ("bleu", "BLEU"), ("rougeL", "R-L (rougeL)")), strict=True
    ):
        score = scores[name]
        assert re.split(r"  +", line.rstrip()) == [head, f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"]
    assert lines[-2] == (
        "4 calls, 28 prompt and 12 generated tokens; 1.50 of 1.50 history blocks shown; "
        "0 empty and 0 cut off at max_new_tokens"
    )
    assert lines[-1] == f"kept in {folder}"
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert len(scripted.calls) == 4


def test_several_methods_share_an_engine_and_are_runs_of_their_own(
    shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    made: list[object] = []
    start = scripted.__init__
    monkeypatch.setattr(scripted, "__init__", lambda self, *given: (made.append(self), start(self, *given))[1])
    # A name alone is a list of one.
    arguments = ["run", "--config", str(shop_config), "--set", "metrics=rouge", "--method"]
    assert main([*arguments, "rag", "pag", "copy", "rag"]) == 0
    printed = capsys.readouterr().out
    assert len(made) == 1
    assert len(scripted.calls) == 3 + 2 * 3
    folders = [Path(line.removeprefix("kept in ")) for line in printed.splitlines() if line.startswith("kept in ")]
    assert [folder.name.partition("-")[0] for folder in folders] == ["rag", "pag", "copy"]
    # Each is the run that its method alone is.
    assert main([*arguments, "pag"]) == 0
    assert capsys.readouterr().out in printed
    assert len(scripted.calls) == 3 + 2 * 3
    for other in (["--shard", "1/2"], ["--merge"], ["--prompts", str(tmp_path / "p"), "--dry-run"]):
        assert main([*arguments, "rag", "pag", *other]) == 2
        assert f"{other[0]} is for one method; give one --method" in capsys.readouterr().err
    assert main([*arguments, "rag", "pag", "--dry-run"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("##")] == [
        "##### rag",
        "##### pag",
    ]


def test_lists_say_in_a_line_what_there_is(capsys: pytest.CaptureFixture[str], example: None) -> None:
    def lines(*arguments: str) -> dict[str, str]:
        assert main(["list", *arguments]) == 0
        return {line.split(None, 1)[0]: line.split(None, 1)[1] for line in capsys.readouterr().out.splitlines()}

    for group in registry.GROUPS:
        assert list(lines(group)) == registry.names(group)
    assert lines("metrics")["copying"] == (
        "How much of a prediction was copied, word by word, from the user's own earlier texts. Gives: Copy rate "
        "(copy_rate), Longest copy (copied_run). Options: n=5. [metrics/copying.py]"
    )
    # What is read from a file without importing it is what the plugins say.
    for group in ("methods", "retrievers", "metrics", "tasks"):
        assert main(["list", group, "--json"]) == 0
        for entry in json.loads(capsys.readouterr().out):
            assert list(entry) == ["name", "about", "options", "scores", "source"]
            assert set(entry["options"]) == set(registry.option_names(group, entry["name"])), entry
            columns = registry.load(group, entry["name"]).columns if group == "metrics" else ()
            assert list(entry["scores"]) == [column.name for column in columns]
            assert entry["about"]
    assert lines("methods")["parrot"].endswith("bench_parrot.parrot:Parrot]")
    assert main(["list", "backends", "--json"]) == 0
    for entry in json.loads(capsys.readouterr().out):
        assert set(entry["options"]) == set(registry.load("backends", entry["name"]).settings.model_fields), entry
    assert lines("configs")["demo"].startswith("The embedded demo: ")
    assert lines("experiments")["table1"].startswith("Methods compared on review generation. Sets: columns=[rouge1, ")


def test_json_is_one_document(
    shop_config: Path, shop: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def document(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert main(["run", "--config", str(shop_config), "--method", "rag", "--set", "temperature=0.5"]) == 0
    capsys.readouterr()
    results = ["--results", str(tmp_path / "results")]
    (tmp_path / "results" / "runs" / "bad").mkdir()
    (tmp_path / "results" / "runs" / "bad" / "run.json").write_text("{")
    listed = document("list", "runs", *results)
    (run,) = listed["runs"]
    assert list(listed["left_out"]) == ["bad"]
    assert (run["complete"], run["instances"], run["completions"]) == (True, 3, 3)
    assert (run["differs"]["temperature"], run["settings"]["temperature"]) == (0.5, 0.5)
    shown = document("show", "rag", *results)
    assert shown["run"] == run["run"]
    assert shown["heads"]["rouge1"] == "R-1"
    assert set(shown["scores"]["Toys"]["bleu"]) == {"value", "low", "high"}
    instance = document("show", "rag", "--instance", "u1", *results)
    assert (instance["instance"], instance["reference"]) == ("Toys/test/u1", "The map is zyzzyva quux one.")
    assert [call["stage"] for call in instance["calls"]] == ["rag_review"]
    assert list(instance["scores"]) == ["rouge1", "rougeL", "bleu"]
    measured = document("data", "stats", str(shop))
    assert [row["split"] for row in measured["sizes"]] == ["train", "val", "test"]
    assert measured["trust"]["Toys"]["without_history"]["of"] == 3
    assert set(document("doctor")["findings"][0]) == {"name", "state", "detail", "fix"}
    assert main(["data", "stats", str(shop), "--config", "demo", "--json"]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code in (0, None)
    assert capsys.readouterr().out == f"bench {importlib.metadata.version('personalization-bench')}\n"


def test_run_prints_what_has_to_stand_with_the_scores(
    chinese_shop: Path, shop_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--config", str(shop_config), "--method", "copy", "--dataset", str(chinese_shop)]) == 0
    assert "rouge: 2 of 3 references are mostly not in the letters a-z" in capsys.readouterr().out.splitlines()[-2]


def test_flags_win_over_the_configuration_and_set_over_flags(
    shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(shop_config), "--method", "rag", "--retriever", "bm25", "--seed", "7"]
    elsewhere = ["--results", str(tmp_path / "elsewhere")]
    assert main([*arguments, *elsewhere, "--set", "k=1", "--set", "seed=9", "--set", "notes=[]"]) == 0
    (folder,) = (tmp_path / "elsewhere" / "runs").iterdir()
    config = RunRecord.read(folder / "run.json").config
    assert (config["retriever"], config["k"], config["seed"], config["notes"]) == ("bm25", 1, 9, [])


def test_dry_run(shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(shop_config), "--method", "pag", "--dry-run"]) == 0
    assert scripted.calls == []
    printed = capsys.readouterr().out
    parts = printed.split("=== ")
    assert parts[1].startswith("pag_profile: the first of 3 prompts\n--- system\nGiven a user's past reviews")
    assert "--- user\n[User's Past Reviews]:\n- [Review 1]:\n- [Item Title]: Green Drum\n" in parts[1]
    assert parts[2].startswith("pag_review: the first of 3 prompts\n--- system\nGiven the title")
    assert "[User Profile]: (the answer to pag_profile)\n" in parts[2]
    total, first, second = printed.splitlines()[-3:]
    assert total == "3 instances, 6 calls"
    # Tokens are bytes here, so the first prompts alone are a lower bound.
    for line, stage in ((first, "pag_profile"), (second, "pag_review")):
        words = line.split()
        assert words[:3] == [f"{stage}:", "3", "calls,"]
        assert int(words[3].replace(",", "")) > 500
    assert not (tmp_path / "results" / "runs").exists()


@pytest.mark.parametrize("method", registry.builtin_names("methods"))
def test_the_first_prompts_in_a_file(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every instance, as the model would see them; with a tokenizer and nothing else of a model."""
    fidelity = "official" if method in ("dep", "dpl", "drp", "rag") else "paper"
    home, model = tmp_path / "tokenizer", local_folder("python:bench/demo/model")
    assert model is not None
    shutil.copytree(model, home, ignore=shutil.ignore_patterns("*.safetensors"))
    if method in ("dep", "pplug", "e2p"):
        monkeypatch.setattr("bench.encoders.EmbeddingCache.embed", None)
    path = tmp_path / "new" / "prompts.jsonl"
    arguments = ["run", "--method", method, "--limit", "2", "--model", str(home), "--set", f"fidelity={fidelity}"]
    assert main([*arguments, "--dry-run", "--prompts", str(path)]) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert capsys.readouterr().out == f"{len(rows)} prompts of 6 instances in {path}\n"
    calls = {"copy": 0, "dpl": 3, "drp": 3}.get(method, 1)
    assert len(rows) == 6 * calls
    run = Run(build(read_config("demo"), {"method": method, "limit": 2, "fidelity": fidelity}))
    assert [row["instance"] for row in rows] == [one.id for one in run.instances for _ in range(calls)]
    for row in rows:
        assert list(row) == ["instance", "stage", "index", "text", "tokens", "blocks_shown", "slots"]
        first = {"dpl": "dpl_difference", "drp": "drp_difference", "pag": "pag_profile"}
        assert row["stage"] == first.get(method, f"{method}_review")
        assert row["text"].startswith("<|im_start|>system\n")
        assert row["text"].endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert ("<|im_end|><|im_start|>" in row["text"]) == (fidelity == "official")
        assert [slot for slot in row["slots"] if slot in row["text"]] == row["slots"]
        assert bool(row["slots"]) == (method in ("dep", "pplug", "e2p", "prompt_tuning"))
        # Each slot and each mark around one is one token, which the demo's model has for those of DEP.
        plain = len(run.chat.tokenizer(row["text"], add_special_tokens=False)["input_ids"])
        assert row["tokens"] < plain if method in ("pplug", "e2p", "prompt_tuning") else row["tokens"] == plain
    assert len({(row["instance"], row["stage"], row["index"]) for row in rows}) == len(rows)


def test_an_option_of_what_does_not_run_is_told(
    shop_config: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(shop_config), "--method", "copy", "--dry-run", "--set"]
    for option, told in (("dep.vectors=shuffled", True), ("rouge.average=mean", False), ("k=1", False)):
        assert main([*arguments, option]) == 0
        sentence = f"--set {option.partition('=')[0]} changes nothing: it is of none of what runs here (copy)"
        assert (sentence in capsys.readouterr().err) == told


@pytest.mark.parametrize("command", [["run", "--method", "rag"], ["train", "--method", "dep"], ["table", "table1"]])
def test_results_that_cannot_be_written_are_refused_before_data_are_read(
    command: list[str],
    shop_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.resolved.load", None)
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        assert main([*command, "--config", str(shop_config), "--results", str(tmp_path / folder)]) == 2
        assert "file is a file; choose another folder: --results FOLDER" in capsys.readouterr().err


def test_prompts_go_with_a_dry_run(
    shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--config", str(shop_config), "--method", "rag", "--prompts"]
    assert main([*arguments, str(tmp_path / "p")]) == 2
    assert "give it with --dry-run" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*arguments, str(tmp_path / "file" / "p"), "--dry-run"]) == 2
    assert "cannot be written: " in capsys.readouterr().err
    for folder in (str(tmp_path), ".", "/"):
        assert main([*arguments, folder, "--dry-run"]) == 2
        assert "is a folder; name a file in it" in capsys.readouterr().err
    assert scripted.calls == []


def test_prompts_into_a_link_and_a_pipe(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    arguments = ["run", "--config", str(shop_config), "--method", "nonperso", "--dry-run", "--prompts"]
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_text("old")
    link.symlink_to(real)
    assert main([*arguments, str(link)]) == 0
    assert link.is_symlink()
    assert len(real.read_text().splitlines()) == 3
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert main([*arguments, str(pipe)]) == 0
        assert reader.communicate()[0] == real.read_bytes()
    assert pipe.is_fifo()


def test_a_dry_run_finds_what_the_run_would(shop_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--config", str(shop_config), "--dry-run"]
    assert main([*arguments, "--method", "dep", "--set", "vllm.repetition_penalty=1.2"]) == 2
    assert "vllm.repetition_penalty=1.2 could penalise" in capsys.readouterr().err
    settings = ["--set", "metrics=[bertscore]", "--set", "bertscore.model=./nowhere"]
    assert main([*arguments, "--method", "rag", *settings]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_dry_run_of_a_method_without_a_model(shop_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(shop_config), "--method", "copy", "--dry-run", "--model", "./nowhere"]) == 0
    assert capsys.readouterr().out == "3 instances, 0 calls\n"


def test_show(shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--config", str(shop_config), "--method", "copy"])
    capsys.readouterr()
    results = ["--results", str(tmp_path / "results")]
    assert main(["list", "runs", *results]) == 0
    assert "complete" in capsys.readouterr().out
    assert main(["show", "copy", *results]) == 0
    assert "rougeL" in capsys.readouterr().out
    assert main(["show", "copy", "--instance", "u1", *results]) == 0
    assert "=== prediction\nThe whole street heard my drum.\n" in capsys.readouterr().out


def test_table(shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["table", "table1", "--config", str(shop_config), "--set", "metrics=[rouge]"]
    assert main(arguments) == 2
    assert "experiment table1 has a column 'meteor', which none of the metrics rouge gives" in capsys.readouterr().err
    experiment = tmp_path / "small.yaml"
    rows = [{"label": "Copy", "set": {"method": "copy"}}]
    groups = [{"name": "", "ranked": False, "rows": rows}]
    experiment.write_text(yaml.safe_dump({"title": "T", "columns": ["bleu"], "groups": groups}))
    assert main(["table", str(experiment), "--config", str(shop_config)]) == 0
    printed = capsys.readouterr().out
    assert "Copy" in printed
    # A configuration that is not the demo's marks its files.
    assert f"wrote {tmp_path / 'results' / 'tables' / 'small-shop.md'}" in printed
    assert (tmp_path / "results" / "tables" / "small-shop.tex").is_file()
    # So do the released code's switches and another seed.
    other = ["--set", "fidelity=official", "--seed", "3"]
    assert main(["table", str(experiment), "--config", str(shop_config), *other]) == 0
    assert "small-shop-official-seed3.md" in capsys.readouterr().out


@pytest.fixture
def two_runs(shop_config: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A run of rag and one of copy; the flag that says where they are."""
    for method in ("rag", "copy"):
        assert main(["run", "--config", str(shop_config), "--method", method]) == 0
    capsys.readouterr()
    return ["--results", str(tmp_path / "results")]


def test_compare(two_runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "rag", "copy", "--changed", "1", *two_runs]) == 0
    printed = capsys.readouterr().out
    assert "method rag -> copy" in printed
    assert "Paired on 3 instances (Toys 3)" in printed
    assert printed.count("reference: ") == 1
    assert main(["compare", "rag", "copy", "--by", "rouge2", *two_runs]) == 2
    assert "'rouge2' is not a score that both runs have; did you mean 'rougeL'?" in capsys.readouterr().err


def test_bless_and_check(two_runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    two_runs += ["--goldens", str(results / "golden")]
    assert main(["check", *two_runs]) == 2
    assert "golden" in capsys.readouterr().err
    assert main(["bless", "copy", "--name", "floor", *two_runs]) == 0
    assert (results / "golden" / "floor" / "summary.json").is_file()
    capsys.readouterr()
    assert main(["check", "copy", *two_runs]) == 0
    assert capsys.readouterr().out == "no drift\n"
    # Of another method there is no golden, unless it is named; then there is drift.
    assert main(["check", "rag", *two_runs]) == 2
    assert "--against NAME" in capsys.readouterr().err
    predictions = results / "golden" / "floor" / "predictions.jsonl"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:-1]))
    assert main(["check", "copy", *two_runs]) != 0


def test_check_of_timings_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--timing", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert "a.json" in capsys.readouterr().err


def test_report(two_runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["report", "--out", str(out), *two_runs]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["report", "--run", "nosuch", *two_runs]) == 2


def raw_files(folder: Path, **columns: str) -> list[str]:
    """The arguments of `bench data prepare` for two files of nine users and twenty items, with some columns renamed."""
    items = [
        {"parent_asin": f"B{n}", "title": f"T{n}", "description": ["d" * 150], "categories": ["c"], "rating_number": 3}
        for n in range(20)
    ]
    reviews = [
        {
            "user_id": f"U{user}",
            "parent_asin": f"B{item}",
            "title": "t",
            "text": f"{user} {item} " + "w " * 120,
            "rating": 4.0,
            "timestamp": 1_600_000_000_000 + item,
        }
        for user in range(9)
        for item in range(20)
    ]
    for name, rows in (("r.jsonl", reviews), ("i.jsonl", items)):
        renamed = [{columns.get(field, field): value for field, value in row.items()} for row in rows]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in renamed))
    return ["data", "prepare", "--reviews", str(folder / "r.jsonl"), "--items", str(folder / "i.jsonl")]


def test_data_prepare_and_stats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = raw_files(tmp_path)
    assert main([*arguments, "--category", "Books", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Books"
    assert printed[-2].split() == ["instances:", "train", "72,", "val", "9,", "test", "9"]
    assert main(["data", "stats", str(out), "--results", str(tmp_path / "results")]) == 0
    printed = capsys.readouterr().out.splitlines()
    (test,) = (line.split() for line in printed if line.startswith("Test: Books"))
    # Each test profile holds ten of history and nine inputs.
    assert test[2:5] == ["9", "19.00", "0.00"]
    assert (tmp_path / "results" / "tables" / "table4-out.tex").is_file()


def test_data_prepare_of_other_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of columns, the published form, lines that cannot be used, and what is refused."""
    arguments = raw_files(tmp_path, user_id="uid", text="body", title="name", parent_asin="asin", timestamp="when")
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write("hello\n")
    mapped = "user_id=uid,text=body,title=name,items.title=name,timestamp=when"
    arguments += ["--category", "Food", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--map", mapped]) == 2
    assert "line 181: not valid JSON" in capsys.readouterr().err
    assert main([*arguments, "--map", mapped, "--timestamps", "s", "--max-bad-lines", "1"]) == 2
    assert "in the other unit? --timestamps ms" in capsys.readouterr().err
    assert main([*arguments, "--map", f"{mapped},colour=red"]) == 2
    assert "'colour=red' is not FIELD=COLUMN" in capsys.readouterr().err
    assert main([*arguments, "--map", mapped, "--max-bad-lines", "-1"]) == 2
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--map", mapped, "--max-bad-lines", "1", "--layout", "dpl"]) == 0
    assert "1  reviews left out, unusable" in capsys.readouterr().out
    prepared, published = (load(str(folder), None)["Food"] for folder in (tmp_path / "out", tmp_path / "out" / "dpl"))
    assert len(prepared.references) == 90
    assert published.references == prepared.references
    assert published.instances == prepared.instances


def test_interrupt(
    shop_config: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scripted, "submit", interrupt)
    assert main(["run", "--config", str(shop_config), "--method", "rag"]) == 130
    assert "interrupted; run the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "\nbench: interrupted\n"),
        (
            OSError(28, "No space left on device", "a\nb"),
            2,
            r"bench: bench run stopped: a\nb: No space left on device" + "\n",
        ),
        (MemoryError(), 2, "bench: bench run stopped: no memory is left; what was finished is kept\n"),
    ],
)
def test_what_stops_a_dry_run(
    error: BaseException,
    code: int,
    said: str,
    shop_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(_: object) -> None:
        raise error

    monkeypatch.setattr("bench.loop.dry_run", stop)
    assert main(["run", "--config", str(shop_config), "--method", "nonperso", "--dry-run"]) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_a_plugin_keeps_its_trace(shop_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.loop.dry_run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--config", str(shop_config), "--method", "nonperso", "--dry-run"])


@dataclass(frozen=True)
class Faulty:
    """A method that divides by zero."""

    properties: ClassVar[Properties] = Properties(retrieval_augmented=False, embedded=False, inter_user=False)

    def steps(self, instance: object, context: object) -> Steps:
        yield from ()
        return str(1 / 0)


def test_a_fault_in_a_plugin_keeps_its_traceback(shop_config: Path, scripted: Any, register: Any) -> None:
    register("methods", "faulty", Faulty)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--config", str(shop_config), "--method", "faulty"])


def test_a_reader_that_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "bench.cli", "list", "methods"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=buffered, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_predictions_hold_what_the_engine_said(shop_config: Path, tmp_path: Path, scripted: Any) -> None:
    main(["run", "--config", str(shop_config), "--method", "nonperso"])
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    rows = list(rows_of(Prediction, folder / "predictions.jsonl"))
    assert [row.prediction for row in rows] == [f"answer nonperso_review Toys/test/u{n}" for n in (1, 2, 3)]


def test_without_a_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["list", "methods"]) == 0
