"""What only a machine with a GPU can find out, in one command: `make gpu-check`, or `python -m bench.gpu_check`.

Each part (`plan.PARTS`) runs in a process of its own with a time limit, and is a line of the report, whatever becomes
of it. The report is one JSON file and one page, written anew after each part.

    plan.py      what is asked for, at which size, and the parts
    __main__.py  the command: starts the parts one after the other, writes the report
    parts.py     the process of a part
    models.py    random models          engines.py   what the parts do with an engine
    page.py      the report as Markdown
"""
