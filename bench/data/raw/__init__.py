"""Reading raw files of reviews and of items with DuckDB: JSON lines (.gz too), CSV or Parquet, columns of any name.

`file.RawFile` reads a file, `fields` and `columns` say which column holds what, `formats` turn each format into the
same rows, `problems` say what is wrong with a row, `database` runs DuckDB, `background` reads the file beside it, and
`checkpoint` keeps what was read.
"""
