"""The commands. They parse, call and print; nothing is imported before the command that needs it is known."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from bench.errors import BenchError, ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 for drift that `bench check` found, 2 for bad input or a broken environment,
    130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        code: int | None = arguments.command(arguments)
        sys.stdout.flush()
        return code or 0
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: interrupted; run the same command again to go on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away: that is its right. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description="Benchmark of methods that make a language model write as a given user would."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run one method, score it and print its scores")
    run.add_argument("--method", required=True, help="name of a method (bench list methods)")
    _add_settings(run)
    run.add_argument("--dry-run", action="store_true", help="show the first prompts and count calls; load no model")
    run.set_defaults(command=_run)

    train = commands.add_parser("train", help="train a method's adapter and choose its epoch; 'bench run' does it too")
    train.add_argument("--method", required=True, help="a method with an adapter, e.g. dep")
    _add_settings(train)
    train.set_defaults(command=_train)

    adapter = commands.add_parser("adapter", help="adapters that were trained elsewhere")
    actions = adapter.add_subparsers(title="actions", required=True, metavar="ACTION")
    importing = actions.add_parser("import", help="take a method's adapter out of a whole-model checkpoint")
    importing.add_argument("source", metavar="FOLDER_OR_HUB_ID", help="checkpoint with safetensors files")
    importing.add_argument("--method", required=True, help="the method whose adapter it is, e.g. dep")
    importing.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    importing.set_defaults(command=_import_adapter)

    table = commands.add_parser(
        "table",
        help="compute what tables and figures miss and write them (LaTeX, Markdown, HTML, CSV; PDF, PNG)",
        description="Several at once share their runs: each run is computed once, by whichever table needs it first.",
    )
    table.add_argument(
        "experiment", nargs="+", help="shipped tables and figures (bench list experiments), or YAML files of your own"
    )
    _add_settings(table, several=True)
    table.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="mean and standard deviation over N seeds (default: 1)"
    )
    table.add_argument(
        "--paper",
        action="store_true",
        help="the paper's figures and the difference from them also where data or model are not the paper's",
    )
    table.add_argument(
        "--significance", action="store_true", help="mark what is significantly worse than the best of its column"
    )
    table.set_defaults(command=_table)

    compare = commands.add_parser("compare", help="two runs on the same instances: differences, intervals, p, texts")
    compare.add_argument("runs", nargs=2, metavar="RUN", help="names of two runs, or parts of them; B minus A is shown")
    compare.add_argument(
        "--changed", type=int, default=5, metavar="N", help="how many changed texts to show (default: 5)"
    )
    compare.add_argument("--by", metavar="SCORE", help="the score by which they changed (default: the first mean)")
    compare.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    compare.set_defaults(command=_compare)

    check = commands.add_parser(
        "check",
        help="the gate: goldens scored again, a run against a golden, or two timings; exit code 1 on drift",
        description="Without RUN every golden's texts are scored again: rows, scores and signatures have to be what "
        "they were. With RUN that run is compared with a golden, as far as chance allows.",
    )
    check.add_argument("run", nargs="?", metavar="RUN", help="a complete run: name, part of it, or folder")
    check.add_argument("--against", metavar="NAME", help="name of a golden (default: the one of the same kind of run)")
    check.add_argument(
        "--minimum", type=float, metavar="SHARE", help="changes below this share of a score are none (default: 0.0025)"
    )
    check.add_argument("--timing", nargs=2, metavar=("OLD", "NEW"), help="compare two files of results/timing instead")
    check.add_argument("--factor", type=float, metavar="TIMES", help="by which a timing may be worse (default: 1.25)")
    check.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    check.add_argument("--goldens", default="results/golden", help="folder of goldens (default: %(default)s)")
    check.set_defaults(command=_check)

    bless = commands.add_parser("bless", help="make a run a golden, or the new state of one: the only way one moves")
    bless.add_argument("run", metavar="RUN", help="a complete run: name, part of it, or folder")
    bless.add_argument("--name", help="of the golden (default: that of the same kind of run, else after it)")
    bless.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    bless.add_argument("--goldens", default="results/golden", help="folder of goldens (default: %(default)s)")
    bless.set_defaults(command=_bless)

    timing = commands.add_parser("time", help="how fast every method is, on one engine: a table and a JSON file")
    timing.add_argument("--method", action="append", default=[], help="a method; repeatable (default: all)")
    _add_settings(timing, limit="instances of each category in a pass (default: 16)")
    timing.add_argument(
        "--warmup", type=int, default=1, metavar="N", help="passes to throw away (default: %(default)s)"
    )
    timing.add_argument("--repeats", type=int, default=3, metavar="N", help="passes to keep (default: %(default)s)")
    timing.set_defaults(command=_time)

    report = commands.add_parser("report", help="one HTML page of all results: leaderboard, tables, figures, texts")
    report.add_argument("--out", metavar="FILE", help="the page (default: RESULTS/report.html)")
    report.add_argument("--run", action="append", default=[], help="part of a run's name; repeatable (default: all)")
    report.add_argument("--instances", type=int, metavar="N", help="how many of each category can be looked at")
    report.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    report.set_defaults(command=_report)

    listing = commands.add_parser("list", help="list methods, retrievers, metrics, configs, experiments or runs")
    listing.add_argument("what", choices=["methods", "retrievers", "metrics", "configs", "experiments", "runs"])
    listing.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    listing.set_defaults(command=_list)

    show = commands.add_parser("show", help="show a run, or one instance of it: history, prompts, output, scores")
    show.add_argument("run", help="name of a run, or any part of it that names one run (bench list runs)")
    show.add_argument("--instance", help="id of an instance, or any part of it that names one")
    show.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    show.set_defaults(command=_show)

    doctor = commands.add_parser("doctor", help="say what works on this machine and how to mend what does not")
    doctor.set_defaults(command=_doctor)

    data = commands.add_parser("data", help="prepare and inspect data sets")
    tasks = data.add_subparsers(title="tasks", required=True, metavar="TASK")
    prepare = tasks.add_parser("prepare", help="raw files of reviews and items to DPL's splits")
    prepare.add_argument(
        "--reviews", required=True, metavar="FILE", help="reviews: .csv, .tsv, .parquet, else JSON lines (.gz too)"
    )
    prepare.add_argument("--items", required=True, metavar="FILE", help="what is reviewed: the same formats")
    prepare.add_argument("--category", required=True, metavar="NAME", help="name of the category, e.g. Books")
    prepare.add_argument("--out", required=True, metavar="FOLDER", help="data set folder; may hold other categories")
    prepare.add_argument(
        "--map",
        default="",
        metavar="NAME|FIELD=COLUMN,...",
        help="whose columns: amazon-2023 (the default), amazon-2018, amazon-2014, with changes "
        "(amazon-2023,text=body), or single fields alone, the others in columns of their own names: user_id, asin, "
        "rating, title, text, timestamp, items.asin, items.title, items.description, items.categories, "
        "items.rating_number (FIELD= for one that the file lacks)",
    )
    prepare.add_argument(
        "--allow-missing",
        default="",
        metavar="FIELD,...",
        help="keep reviews and items without these: title, items.title, items.description, items.categories, "
        "items.rating_number",
    )
    prepare.add_argument("--timestamps", choices=["s", "ms"], help="unit of the times (default: the layout's)")
    prepare.add_argument(
        "--max-bad-lines",
        type=int,
        default=0,
        metavar="N",
        help="leave out up to N lines of each file that cannot be used, and count them (default: %(default)s)",
    )
    prepare.add_argument(
        "--layout", choices=["dpl"], help="write the category to FOLDER/dpl too, in the form of the published splits"
    )
    prepare.set_defaults(command=_prepare)
    fetch = tasks.add_parser("fetch", help="bring published data, or a category's raw files, from the hub to a folder")
    fetch.add_argument("dataset", nargs="?", metavar="ID", help="data set on the hub (default: SnowCharmQ/DPL-main)")
    fetch.add_argument("--raw", metavar="CATEGORY", help="bring raw files of Amazon Reviews 2023 instead, e.g. Books")
    fetch.add_argument("--category", action="append", metavar="NAME", help="one category; repeatable (default: all)")
    fetch.add_argument("--revision", metavar="REV", help="branch, tag or commit; MAIN,META where the two differ")
    fetch.add_argument("--out", required=True, metavar="FOLDER", help="where to; may hold more of the same revision")
    fetch.set_defaults(command=_fetch)
    stats = tasks.add_parser("stats", help="sizes beside the paper's (Table 4), and how far a run can be trusted")
    stats.add_argument(
        "dataset", nargs="*", default=["demo"], help="demo, a folder or a hub id; several together (default: demo)"
    )
    stats.add_argument("--config", help="say too how many history blocks fit this configuration's input budget")
    stats.add_argument("--results", default="results", help="folder of results (default: %(default)s)")
    stats.set_defaults(command=_stats)
    return parser


def _add_settings(
    parser: argparse.ArgumentParser, several: bool = False, limit: str = "only the first N instances of each category"
) -> None:
    if several:
        parser.add_argument(
            "--config",
            action="append",
            help="shipped configuration or YAML file (default: demo); with several the rows are repeated for each",
        )
    else:
        parser.add_argument("--config", default="demo", help="shipped configuration or YAML file (default: demo)")
    parser.add_argument("--retriever", help="which reviews a method sees: recency, bm25, contriever, random, ...")
    parser.add_argument("--dataset", help="demo, a folder (prepared or in the published form), or a hub id")
    parser.add_argument("--model", help="hub id, local folder or python:PACKAGE/folder")
    parser.add_argument("--backend", choices=["vllm", "openai"], help="vLLM in this process, or a server")
    parser.add_argument("--base-url", metavar="URL", help="address of the server (with --backend openai)")
    parser.add_argument("--limit", type=int, metavar="N", help=limit)
    parser.add_argument("--seed", type=int, metavar="N", help="seed of sampling and of the random retriever")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any configuration key, e.g. k=4; repeatable"
    )


def _settings(arguments: argparse.Namespace, config: str | None = None) -> dict[str, Any]:
    """The settings of a configuration file with those of the flags over them."""
    from bench.config import merge, parse_setting, read_config

    settings = read_config(config or arguments.config)
    for name in ("method", "retriever", "dataset", "model", "backend", "limit", "seed"):
        # A list: the methods of a timing, each of which is a run of its own.
        if getattr(arguments, name, None) is not None and not isinstance(getattr(arguments, name), list):
            settings = merge(settings, {name: getattr(arguments, name)})
    if arguments.base_url is not None:
        settings = merge(settings, {"openai": {"base_url": arguments.base_url}})
    for text in arguments.set:
        settings = merge(settings, parse_setting(text))
    if arguments.base_url is not None and settings.get("backend") != "openai":
        raise ConfigError("--base-url is for a server: add --backend openai")
    return settings


def _run(arguments: argparse.Namespace) -> None:
    from bench.config import build
    from bench.execute import execute
    from bench.runner import Run, rehearse

    run = Run(build(_settings(arguments)))
    if arguments.dry_run:
        stages = rehearse(run)
        for stage, seen in stages.items():
            print(f"=== {stage}: the first of {seen.calls} prompts\n--- system\n{seen.first.system}")
            print(f"--- user\n{seen.first.user}\n")
        print(f"{len(run.instances)} instances, {sum(seen.calls for seen in stages.values())} calls")
        for stage, seen in stages.items():
            print(f"  {stage}: {seen.calls} calls, {seen.prompt_tokens:,} prompt tokens")
        return
    (summary,) = execute([run])
    _print_summary(summary)
    print(f"kept in {run.folder}")


def _train(arguments: argparse.Namespace) -> None:
    from bench.config import build
    from bench.execute import train
    from bench.runner import Run

    run = Run(build(_settings(arguments)))
    if not run.learns:
        raise ConfigError(
            f"nothing to train: method {run.config.method} "
            + ("uses the adapter that is set" if run.config.adapter else "has no adapter in this configuration")
        )
    train(run)
    print(f"kept in {run.adapter_folder}")


def _import_adapter(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.softprompt.importing import import_adapter

    folder = import_adapter(arguments.source, arguments.method, Path(arguments.results))
    print(f"kept in {folder}\nuse it: bench run --method {arguments.method} --set adapter={folder} ...")


def _print_summary(summary: dict[str, Any]) -> None:
    from tabulate import tabulate

    rows = [
        [category, summary["instances"][category], column, cell["value"], f"[{cell['low']:.4f}, {cell['high']:.4f}]"]
        for category, scores in summary["scores"].items()
        for column, cell in scores.items()
    ]
    print(summary["name"])
    print(tabulate(rows, headers=["category", "instances", "metric", "score", "95% interval"], floatfmt=".4f"))
    print(
        f"{summary['calls']} calls, {summary['prompt_tokens']:,} prompt and {summary['completion_tokens']:,} generated "
        f"tokens; {summary['blocks_shown']:.2f} of {summary['blocks_offered']:.2f} history blocks shown; "
        f"{summary['empty_predictions']} empty and {summary['cut_off']} cut off at max_new_tokens"
    )


def _table(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.report.produce import Options, produce

    configs = {config: _settings(arguments, config) for config in arguments.config or ["demo"]}
    # Tables of several configurations, data sets, fidelities and seeds lie side by side; the demo's carries the
    # experiment's plain name.
    suffix = "" if list(configs) == ["demo"] else "".join(f"-{Path(config).stem}" for config in configs)
    suffix += f"-{Path(arguments.dataset).name}" if arguments.dataset else ""
    official = any(settings.get("fidelity") == "official" for settings in configs.values())
    suffix += "-official" if official and "official" not in suffix else ""
    suffix += f"-seed{arguments.seed}" if arguments.seed else ""
    suffix += f"-seeds{arguments.seeds}" if arguments.seeds > 1 else ""
    options = Options(arguments.seeds, arguments.paper, arguments.significance, suffix)
    for line in produce(arguments.experiment, configs, options):
        print(line)


def _compare(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.compare import compare, render
    from bench.finished import find_run, finished

    a, b = (finished(find_run(Path(arguments.results), part)) for part in arguments.runs)
    print(render(compare(a, b, arguments.changed, arguments.by)))


def _check(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from bench import drift
    from bench.finished import find_run, finished
    from bench.progress import say
    from bench.timing import compare_timings

    goldens = Path(arguments.goldens)
    of_run = [flag for flag in ("against", "minimum") if getattr(arguments, flag) is not None]
    if arguments.run is None and of_run:
        raise ConfigError(f"--{of_run[0]} is for a run: give the run to check")
    if arguments.timing is None and arguments.factor is not None:
        raise ConfigError("--factor is for timings: give --timing OLD NEW")
    if arguments.timing is not None:
        if arguments.run is not None:
            raise ConfigError("give a run or --timing OLD NEW, not both")
        old, new = map(Path, arguments.timing)
        findings = compare_timings(old, new, *([] if arguments.factor is None else [arguments.factor]))
    elif arguments.run is not None:
        run = find_run(Path(arguments.results), arguments.run)
        golden = drift.find_golden(finished(run, whole=False), goldens, arguments.against)
        findings = drift.check_run(run, golden, say, *([] if arguments.minimum is None else [arguments.minimum]))
    else:
        findings = drift.check_goldens(goldens, say)
    for finding in findings:
        print(f"drift: {finding}")
    if not findings:
        print("no drift")
    return 1 if findings else 0


def _bless(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.drift import bless
    from bench.finished import find_run

    run = find_run(Path(arguments.results), arguments.run)
    for line in bless(run, Path(arguments.goldens), arguments.name):
        print(line)


def _time(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.report.timing import LIMIT, time_methods

    settings = _settings(arguments)
    limit = settings.pop("limit", None) or LIMIT
    name = Path(arguments.config).stem
    for line in time_methods(settings, arguments.method, limit, arguments.warmup, arguments.repeats, name):
        print(line)


def _report(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.report.html import INSTANCES, write_report

    results = Path(arguments.results)
    out = results / "report.html" if arguments.out is None else Path(arguments.out).expanduser()
    instances = INSTANCES if arguments.instances is None else arguments.instances
    print(f"wrote {write_report(results, out, arguments.run, instances)}")


def _list(arguments: argparse.Namespace) -> None:
    from bench import registry

    if arguments.what == "runs":
        from bench.report.runs import list_runs

        print(list_runs(arguments.results))
    elif arguments.what == "configs":
        from bench.config import config_names

        print("\n".join(config_names()))
    elif arguments.what == "experiments":
        from bench.report.experiment import experiment_names, read_experiment

        for name in experiment_names():
            print(f"{name:<9} {read_experiment(name)[1].title}")
    else:
        print("\n".join(registry.names(arguments.what)))


def _show(arguments: argparse.Namespace) -> None:
    from bench.report.runs import show_instance, show_run

    if arguments.instance is None:
        print(show_run(arguments.results, arguments.run))
    else:
        print(show_instance(arguments.results, arguments.run, arguments.instance))


def _doctor(_: argparse.Namespace) -> None:
    from bench.doctor import diagnose, render

    print(render(diagnose()))


def _prepare(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.data import prepared, published
    from bench.data.layouts import read_layout
    from bench.data.prepare import EXPORT, prepare
    from bench.progress import say

    if arguments.max_bad_lines < 0:
        raise ConfigError("--max-bad-lines cannot be negative")
    out = Path(arguments.out).expanduser()
    summary = prepare(
        Path(arguments.reviews).expanduser(),
        Path(arguments.items).expanduser(),
        arguments.category,
        out,
        progress=say,
        layout=read_layout(arguments.map, arguments.allow_missing, arguments.timestamps),
        max_bad_lines=arguments.max_bad_lines,
    )
    print("\n".join(summary.lines()))
    if arguments.layout == "dpl":
        published.export(prepared.read(out, arguments.category), out / EXPORT)
        say(f"in the form of the published splits: {out / EXPORT}")


def _fetch(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.data import fetch, published
    from bench.progress import say

    out = Path(arguments.out).expanduser()
    if arguments.raw is None:
        fetch.fetch(arguments.dataset or published.HUB, out, arguments.category, arguments.revision, say)
        print(f"kept in {out}\nuse it: bench run --dataset {out} ...")
    elif arguments.dataset or arguments.category:
        raise ConfigError("--raw brings the raw files of the category it names: leave out ID and --category")
    else:
        files = fetch.fetch_raw(arguments.raw, out, arguments.revision, say)
        print(f"kept in {out}\ngo on with: {fetch.next_command(arguments.raw, *files, out)}")


def _stats(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from bench.report.data_statistics import data_statistics

    for line in data_statistics(arguments.dataset, arguments.config, Path(arguments.results)):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
