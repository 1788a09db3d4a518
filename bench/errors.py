"""The exception tree of bench.

    BenchError                  bad input or a broken environment; the CLI prints it and exits with code 2
    ├── ConfigError             a configuration key or value that cannot be used
    │   └── MisfitError         a method, retriever or metric that the data of a task cannot serve
    ├── DataError               a data set that is missing, malformed or inconsistent
    ├── PluginError             an unknown method, retriever or metric, or one that breaks its protocol
    ├── ResourceError           something outside the repository is missing (WordNet, a model, a package)
    ├── BackendError            the language model could not be reached or refused a call
    └── StoreError              a run folder that cannot be read or written
        ├── BusyError           a folder that another process works on
        └── DamagedError        a stored file that is not what was written

Every message says what went wrong, where, and what to do about it.
"""


class BenchError(Exception):
    """Base of every error a user can cause or mend."""


class ConfigError(BenchError):
    """A configuration key or value that cannot be used."""


class MisfitError(ConfigError):
    """A method, a retriever or a metric that needs what the data of a task do not have."""


class DataError(BenchError):
    """A data set that is missing, malformed or inconsistent."""


class PluginError(BenchError):
    """An unknown method, retriever or metric, or one that breaks its protocol."""


class ResourceError(BenchError):
    """Something outside the repository is missing: WordNet, a model, a package."""


class BackendError(BenchError):
    """The language model could not be reached or refused a call."""


class StoreError(BenchError):
    """A run folder that cannot be read or written."""


class BusyError(StoreError):
    """A folder that another process works on."""


MEND = "Run its command again, which mends it"
"""What to do about a damaged file of a run or of a trained adapter."""


class DamagedError(StoreError):
    """A stored file that is missing or not what was written; `what` says so without what to do about it, `mend`."""

    def __init__(self, where: object, problem: str, mend: str = MEND) -> None:
        self.what = f"{where} is damaged: {problem}"
        super().__init__(f"{self.what}. {mend}")
        self.where = str(where)
        self.problem = problem
