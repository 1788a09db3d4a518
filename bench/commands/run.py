"""bench run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bench.commands.options import add_settings, idle_options, settings_of
from bench.errors import ConfigError, StoreError
from bench.files import check_results, path_of
from bench.progress import say
from bench.shards import Shard, named
from bench.terminal import show

if TYPE_CHECKING:
    from pathlib import Path

    from bench.config import RunConfig
    from bench.results import Summary

HELP = "run methods, score them and print their scores"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(goes_on=True)
    parser.add_argument(
        "--method",
        required=True,
        nargs="+",
        help="a method (bench list methods), or several, which share engines: each is a run of its own",
    )
    add_settings(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the first prompts and count calls; load no model")
    parser.add_argument(
        "--prompts",
        type=path_of,
        metavar="FILE",
        help="with --dry-run: write what the model would be asked first, a JSON line for each prompt, to FILE",
    )
    parser.add_argument(
        "--shard",
        type=Shard.parse,
        metavar="N/COUNT",
        help="make the texts of one of COUNT shares of the instances, e.g. 3/8: all of them may work on a run at the "
        "same time, each goes on by itself after a kill, and the last one completes the run",
    )
    parser.add_argument(
        "--merge", action="store_true", help="complete a run from what its shards wrote; asks no model, trains nothing"
    )


def run(arguments: argparse.Namespace) -> None:
    """Make the texts that are missing, score them, print the scores and where the runs are kept."""
    from bench.config import build

    given = {"--dry-run": arguments.dry_run, "--shard": arguments.shard is not None, "--merge": arguments.merge}
    if len(chosen := [name for name, is_given in given.items() if is_given]) > 1:
        raise ConfigError(f"{' and '.join(chosen)} are different things to do; give one of them")
    methods = dict.fromkeys(arguments.method)
    configs = [build(settings_of(argparse.Namespace(**vars(arguments) | {"method": name}))) for name in methods]
    alone = {"--prompts": arguments.prompts is not None, "--shard": given["--shard"], "--merge": given["--merge"]}
    if len(configs) > 1 and any(alone.values()):
        raise ConfigError(f"{next(name for name in alone if alone[name])} is for one method; give one --method")
    if arguments.prompts is not None:
        if not arguments.dry_run:
            raise ConfigError("--prompts FILE writes prompts and asks no model: give it with --dry-run")
        _write_prompts(configs[0], arguments.prompts)
        return
    if idle := idle_options(arguments, configs):
        say(f"--set {', '.join(idle)} changes nothing: it is of none of what runs here ({', '.join(methods)})")
    if arguments.dry_run:
        for config in configs:
            _show_prompts(config, config.method if len(configs) > 1 else "")
        return
    check_results(configs[0].results)
    for summary in _summaries(configs, arguments.shard, arguments.merge):
        _show(summary, configs[0].results / "runs" / summary.name)


def _summaries(configs: list[RunConfig], shard: Shard | None, merges: bool) -> list[Summary]:
    """Make what is missing of the runs, all together; none for a shard of a run that is not complete yet."""
    from bench.execute import execute, merge
    from bench.job import Job
    from bench.resolved import Inputs

    if shard is not None:
        summary = _shard(configs[0], shard)
        return [] if summary is None else [summary]
    inputs = Inputs()
    jobs = [Job.of(config, inputs) for config in configs]
    return [merge(jobs[0])] if merges else execute(list({job.folder: job for job in jobs}.values()))


def _shard(config: RunConfig, shard: Shard) -> Summary | None:
    """Make a shard's texts, and say what the other shards still have to do."""
    from bench.execute import write_shard
    from bench.job import Job

    done = write_shard(Job.of(config), shard)
    show(f"shard {shard}: all of its {done.instances:,} instances are written ({done.total:,} in the run)")
    if done.left:
        busy = f" (at work: {named(done.at_work)})" if done.at_work else ""
        show(
            f"{done.left:,} instances are left, those of shards {named(done.to_come)}{busy}; the last completes the run"
        )
    return done.summary


def _write_prompts(config: RunConfig, path: Path) -> None:
    """The prompts need the data, the tokenizer and perhaps an encoder, and nothing that writing or scoring needs."""
    from bench.files import as_lines, drop_leftovers, replacing
    from bench.loop import first_stage
    from bench.resolved import Run, tell_defaults
    from bench.softprompt.trained import told_apart

    if not path.name or path.is_dir():
        raise ConfigError(f"--prompts {path} is a folder; name a file in it")
    run = Run(config)
    tell_defaults(run)
    if sentence := told_apart(run):
        say(sentence)
    # A pipe or a device is written to and not replaced; a link leads to the file that is.
    special = path.exists() and not path.is_file()
    count = 0
    if not special:
        drop_leftovers(path.resolve())
    try:
        with path.open("wb") if special else replacing(path.resolve()) as file:
            for row in first_stage(run):
                file.write(as_lines([row]).encode())
                count += 1
    except OSError as error:
        raise StoreError(f"--prompts {path} cannot be written: {error.strerror or error}; name another file") from error
    show(f"{count} prompts of {len(run.instances)} instances in {path}")


def _show_prompts(config: RunConfig, title: str) -> None:
    from bench.job import Job
    from bench.loop import dry_run
    from bench.resolved import tell_defaults

    job = Job.of(config)
    job.check()
    tell_defaults(job.run)
    stages = dry_run(job.run)
    if title:
        show(f"##### {title}\n")
    for stage, seen in stages.items():
        show(f"=== {stage}: the first of {seen.calls} prompts\n--- system\n{seen.first.system}")
        show(f"--- user\n{seen.first.user}\n")
    show(f"{len(job.run.instances)} instances, {sum(seen.calls for seen in stages.values())} calls")
    for stage, seen in stages.items():
        show(f"  {stage}: {seen.calls} calls, {seen.prompt_tokens:,} prompt tokens")


def _show(summary: Summary, folder: Path) -> None:
    from bench.finished import finished
    from bench.report.runs import scores_table

    show(summary.name)
    show(f"{scores_table(finished(folder))}\n")
    show(
        f"{summary.calls} calls, {_tokens(summary)}; {summary.blocks_shown:.2f} of {summary.blocks_offered:.2f} "
        f"history blocks shown; {summary.empty_predictions} empty and {summary.cut_off} cut off at max_new_tokens"
    )
    for note in (*summary.answer_notes, *summary.metric_notes.values()):
        show(note)
    show(f"kept in {folder}")


def _tokens(summary: Summary) -> str:
    """How many tokens, as far as it is known."""
    if summary.calls and summary.uncounted_calls == summary.calls:
        return "an unknown number of tokens (the server does not tell it)"
    unknown = f" (without {summary.uncounted_calls} calls whose tokens are unknown)" if summary.uncounted_calls else ""
    return f"{summary.prompt_tokens:,} prompt and {summary.completion_tokens:,} generated tokens{unknown}"
