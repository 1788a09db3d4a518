"""A benchmark of methods that make a language model write as a given user would. For notebooks:

    import bench

    summary = bench.run("rag", limit=20)     # compute and score a run of the demo
    bench.runs("results")                    # a DataFrame, a row a run
    bench.scores("results")                  # a DataFrame, a row an instance and score
    print(bench.compare("rag", "pag"))       # two runs on the same instances
    print(bench.table("table1"))             # a table of the paper

Bad input raises `bench.errors.BenchError`, which says what to do about it.
"""

from bench.api import compare, run, runs, scores, table

__all__ = ["compare", "run", "runs", "scores", "table"]
