"""bench data prepare, fetch, stats and demo."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.commands.options import add_json, add_results
from bench.data.raw.columns import QUOTING, TIMES
from bench.data.thresholds import HELP as THRESHOLDS
from bench.data.thresholds import OPTIONS, Thresholds
from bench.errors import ConfigError
from bench.files import path_of
from bench.terminal import show, show_json

HELP = "prepare and inspect data sets"


def add(parser: argparse.ArgumentParser) -> None:
    """The command's actions and their flags."""
    actions = parser.add_subparsers(title="tasks", required=True, metavar="TASK")
    _add_prepare(actions.add_parser("prepare", help="raw files of reviews and items to DPL's splits"))
    _add_fetch(
        actions.add_parser("fetch", help="bring published data, or a category's raw files, from the hub to a folder")
    )
    _add_stats(
        actions.add_parser("stats", help="sizes beside the paper's (Table 4), floors, and how far a run can be trusted")
    )
    _add_demo(actions.add_parser("demo", help="write a task's invented data to a folder, in its published layout"))


def run(arguments: argparse.Namespace) -> None:
    """Do one of the actions."""
    arguments.action(arguments)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=prepare)
    parser.add_argument(
        "--reviews",
        type=path_of,
        required=True,
        metavar="FILE",
        help="reviews: .csv, .tsv, .parquet, else JSON lines (.gz too)",
    )
    parser.add_argument(
        "--items",
        type=path_of,
        metavar="FILE",
        help="what is reviewed: the same formats (default: items come out of the reviews' own columns)",
    )
    parser.add_argument(
        "--category",
        metavar="NAME",
        help="name of the category, e.g. Books (default: that of the file of reviews)",
    )
    parser.add_argument(
        "--out", type=path_of, required=True, metavar="FOLDER", help="data set folder; may hold other categories"
    )
    parser.add_argument(
        "--map",
        default="",
        metavar="NAME|FIELD=COLUMN,...",
        help="whose columns: amazon-2023 (the default), amazon-2018, amazon-2014, with changes "
        "(amazon-2023,text=body), or single fields alone, the others in columns of their own names: user_id, asin, "
        "rating, title, text, timestamp, items.asin, items.title, items.description, items.categories, "
        "items.rating_number (FIELD= for one that the file lacks)",
    )
    parser.add_argument(
        "--allow-missing",
        default="",
        metavar="FIELD,...",
        help="keep reviews and items without these: title, items.title, items.description, items.categories, "
        "items.rating_number",
    )
    parser.add_argument(
        "--timestamps",
        choices=TIMES,
        help="unit of times that are numbers (default: the layout's), or what comes first in dates like 05/06/2015",
    )
    parser.add_argument(
        "--rating-scale",
        metavar="MIN-MAX",
        help="the lowest and the highest rating there can be, e.g. 0-20 for ratings like 13/20 or 6.5 (default: 0.5-5)",
    )
    parser.add_argument(
        "--quoting",
        choices=QUOTING,
        default="",
        help="how values of .csv and .tsv are quoted (default: double in .csv, none in .tsv)",
    )
    parser.add_argument(
        "--max-bad-lines",
        type=int,
        default=0,
        metavar="N",
        help="leave out up to N lines of each file that cannot be used, and count them (default: %(default)s)",
    )
    parser.add_argument(
        "--layout", choices=["dpl"], help="write the category to FOLDER/dpl too, in the form of the published splits"
    )
    group = parser.add_argument_group("thresholds", "DPL's are the defaults; with others the data set is not DPL's")
    for name, option in OPTIONS.items():
        about = f"{THRESHOLDS[name]} (default: %(default)s)"
        group.add_argument(option, dest=name, type=int, default=getattr(Thresholds, name), metavar="N", help=about)


def prepare(arguments: argparse.Namespace) -> None:
    """Make the splits of a category and print what was left out."""
    from bench.data.export import export
    from bench.data.prepare import prepare
    from bench.data.raw.columns import read_column_map
    from bench.data.raw.formats import column_names
    from bench.data.scale import STARS
    from bench.progress import say

    if arguments.max_bad_lines < 0:
        raise ConfigError("--max-bad-lines cannot be negative")
    thresholds = Thresholds(**{name: getattr(arguments, name) for name in OPTIONS})
    thresholds.check()
    reviews, out = arguments.reviews, arguments.out
    found = column_names(reviews, arguments.quoting) if arguments.items is None else None
    columns = read_column_map(
        arguments.map, arguments.allow_missing, arguments.timestamps, arguments.quoting, arguments.rating_scale, found
    )
    if arguments.layout == "dpl" and columns.scale != STARS:
        raise ConfigError("--layout dpl: the published form knows ratings of up to 5 stars alone; leave it out")
    category = arguments.category or re.sub(r"[^\w-]+", "_", reviews.name.partition(".")[0]).strip("_")
    summary = prepare(
        reviews,
        arguments.items,
        category,
        out,
        progress=say,
        thresholds=thresholds,
        columns=columns,
        max_bad_lines=arguments.max_bad_lines,
    )
    show("\n".join(summary.lines()))
    if arguments.layout == "dpl":
        say(f"in the form of the published splits: {export(out, category)}")


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=fetch)
    parser.add_argument("dataset", nargs="?", metavar="ID", help="data set on the hub (default: SnowCharmQ/DPL-main)")
    parser.add_argument("--raw", metavar="CATEGORY", help="bring raw files of Amazon Reviews 2023 instead, e.g. Books")
    parser.add_argument(
        "--category", action="append", metavar="NAME", help="one category, or folder; repeatable (default: all)"
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit; MAIN,META where the two differ")
    parser.add_argument(
        "--out", type=path_of, required=True, metavar="FOLDER", help="where to; may hold more of the same revision"
    )


def fetch(arguments: argparse.Namespace) -> None:
    """Bring data and print the command that goes on with them."""
    from bench.data import fetch
    from bench.data.origins import HUB
    from bench.progress import say

    out = arguments.out
    if arguments.raw is None and not (arguments.dataset or HUB).endswith("-main"):
        fetch.fetch_files(arguments.dataset, out, arguments.category, arguments.revision, say)
        show(f"kept in {out}, as it lies on the hub\nuse it: bench run --task TASK --dataset {out} ...")
    elif arguments.raw is None:
        fetch.fetch(arguments.dataset or HUB, out, arguments.category, arguments.revision, say)
        show(f"kept in {out}\nuse it: bench run --dataset {out} ...")
    elif arguments.dataset or arguments.category:
        raise ConfigError("--raw brings the raw files of the category it names: leave out ID and --category")
    else:
        files = fetch.fetch_raw(arguments.raw, out, arguments.revision, say)
        show(f"kept in {out}\ngo on with: {fetch.next_command(arguments.raw, *files, out)}")


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=stats)
    parser.add_argument(
        "dataset", nargs="*", default=["demo"], help="demo, a folder or a hub id; several together (default: demo)"
    )
    parser.add_argument("--config", help="say too how many history blocks fit this configuration's input budget")
    parser.add_argument("--task", help="what the data are for (default: the configuration's task, else reviews)")
    add_results(parser)
    add_json(parser)


def stats(arguments: argparse.Namespace) -> None:
    """Print sizes, and what decides how far a run can be trusted."""
    from bench.experiments.data import data_object, data_statistics

    if arguments.json:
        if arguments.config is not None:
            raise ConfigError("--json gives what is measured of the data alone: leave out --config")
        show_json(data_object(arguments.dataset, arguments.task))
        return
    for line in data_statistics(arguments.dataset, arguments.config, arguments.results, arguments.task):
        show(line)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=demo)
    parser.add_argument("--task", required=True, help="whose data: lamp-3, ... (bench list tasks)")
    parser.add_argument(
        "--out", type=path_of, metavar="FOLDER", help="where to; must not be there (default: demo-TASK in this folder)"
    )


def demo(arguments: argparse.Namespace) -> None:
    """Write the data that `--dataset demo` is for a task, and print the command that goes on with them."""
    from bench.data.load import write_sample

    out = write_sample(arguments.task, arguments.out or Path(f"demo-{arguments.task}"))
    show(f"written to {out}\nuse it: bench run --task {arguments.task} --dataset {out} ...")
