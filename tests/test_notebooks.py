"""The notebooks are clean, say what they need, and run in a Jupyter kernel, offline on tiny models."""

import json
import re
from pathlib import Path

import datasets
import pytest
from tiny_data import mood_rows, save_model, write_task
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    set_seed,
)

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
CHINESE = EXAMPLES / "data" / "chinese"
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind=None):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


# A warning ends a cell.
FIRST = """
import warnings
warnings.simplefilter("error")
"""
LAST = """
import json
warnings.resetwarnings()
print("LEFT", json.dumps({wanted}))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(name, wanted, **parameters)`: what the cells show, and the values of names and expressions at the end."""
    nbformat = pytest.importorskip("nbformat", reason="pip install 'hf_distill[test]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install 'hf_distill[test]'")
    pytest.importorskip("ipykernel", reason="pip install 'hf_distill[test]'")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def make(name, wanted, **parameters):
        [path] = [path for path in NOTEBOOKS if path.stem == name]
        notebook = nbformat.read(path, as_version=4)
        given = "".join(f"{parameter} = {value!r}\n" for parameter, value in parameters.items())
        assert all(f"{parameter} = " in notebook.cells[1].source for parameter in parameters)
        notebook.cells.insert(2, nbformat.v4.new_code_cell(FIRST + given))
        left = "{" + ", ".join(f"{key!r}: {value}" for key, value in wanted.items()) + "}"
        notebook.cells.append(nbformat.v4.new_code_cell(LAST.format(wanted=left)))
        client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        shown = "".join(output.get("text") or output.get("data", {}).get("text/html", "") for output in outputs)
        shown, _, found = shown.partition("LEFT ")
        return shown, json.loads(found)

    return make


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """What is written lies there."""
    monkeypatch.chdir(tmp_path)


# --- what a notebook looks like -------------------------------------------------------------------------------------


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["chinese_4x312", "corpus_for_your_task", "first_distillation"]


@each_notebook
def test_a_notebook_is_clean_and_has_one_cell_of_parameters(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in cells(path)}) == len(cells(path))
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    tagged = [cell for cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", ())]
    assert tagged == cells(path, "code")[:1]


@each_notebook
def test_a_notebook_explains_every_step_and_links_to_what_is_there(path):
    assert cells(path)[0]["source"][0].startswith("# ")
    text = "".join("".join(cell["source"]) + "\n" for cell in cells(path, "markdown"))
    assert "pip install" in text
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
    kinds = [cell["cell_type"] for cell in cells(path)]
    assert "code code code" not in " ".join(kinds)


# --- what it does ---------------------------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path, sentences):
    """The folder of a task that has the words of SST-2's labels."""
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    for split, part in {"train": sentences[:40], "validation": sentences[40:52], "test": sentences[52:]}.items():
        rows = {"sentence": part, "label": [index % 2 for index in range(len(part))]}
        path = tmp_path / "glue" / "SST-2" / f"{split}.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return str(tmp_path / "glue")


@pytest.fixture
def films_of_ones_own(tmp_path, sentences):
    """The folder of a task whose column is called as the trainer calls it by default."""
    spec = {"text_columns": ["text"], "label_names": ["negative", "positive"], "metrics": ["accuracy"]}
    write_task(tmp_path / "own", mood_rows(sentences[:52]), **spec)
    return str(tmp_path / "own")


def test_a_first_distillation(run, films_of_ones_own, tiny_tokenizer):
    set_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tiny_tokenizer), dim=24, n_layers=3, n_heads=4, hidden_dim=32, max_position_embeddings=64,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, seq_classif_dropout=0.0,
    )  # fmt: skip
    save_model("teacher", DistilBertForSequenceClassification(config), tiny_tokenizer)
    shown, left = run(
        "first_distillation",
        {"curve": "curve", "scores": "(teacher_score, student_score)"},
        teacher_name="./teacher", task_name=films_of_ones_own, student_shape="2x12:2h:20", num_rows=32,
        num_evaluated=12, num_epochs=2, batch_size=8,
    )  # fmt: skip
    assert [entry["epoch"] for entry in left["curve"]] == [1, 2]
    assert all(0 <= entry["eval_agreement"] <= 1 for entry in left["curve"])
    student = AutoModelForSequenceClassification.from_pretrained("first-student")
    assert (type(student), student.config.dim) == (DistilBertForSequenceClassification, 12)
    assert Path("first-student/README.md").is_file()
    scores = left["scores"]
    assert f"teacher {scores[0]:.3f}, student {scores[1]:.3f} (accuracy, validation)" in shown
    assert re.search(r"dull, long and bad {'label': '(NEGATIVE|POSITIVE)'", shown)
    assert shown.count("<table") == 1
    headings = re.findall(r"<th>(.+?)</th>", shown)
    assert headings[:3] == ["Epoch", "Training Loss", "Validation Loss"]
    assert set(headings[3:]) == {
        "Loss of logits, soft", "Loss of relation, qq", "Loss of relation, kk", "Loss of relation, vv",
        "Agreement with the teacher (logits)", "Divergence from the teacher (logits)",
        "Agreement with the teacher (relation)", "Accuracy on the task",
    }  # fmt: skip


def test_a_corpus_for_your_task(run, films, tiny_tokenizer, tiny_bert_config, sentences):
    set_seed(0)
    save_model("encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    general = [f"{first} and {second}" for first, second in zip(sentences, reversed(sentences), strict=True)]
    Path("general.txt").write_text("\n".join([*general, sentences[45]]), encoding="utf-8")
    shown, left = run(
        "corpus_for_your_task",
        {"texts": "corpus.dataset['text'][:]", "found": "found"},
        task_folder=films, general_text="general.txt", num_anchors=10, top_k=3, teacher_name="./encoder",
        student_shape="2x12:2h:20", num_steps=4, batch_size=8,
    )  # fmt: skip
    texts = left["texts"]
    assert 0 < len(texts) < len(general)
    assert sentences[45] not in texts, "it is in the validation split"
    assert [entry["step"] for entry in left["found"]["corpus"]] == [0, 1, 2, 3, 4]
    assert {"eval_loss", "eval_agreement", "eval_probe/accuracy"} <= left["found"]["random"][-1].keys()
    page = Path("two-students/report.html").read_text(encoding="utf-8")
    assert "corpus, random" in page
    assert page.count("data:image/svg+xml") >= 3
    assert re.search(r"4 +loss \d+\.\d{3}, probe", shown)


@pytest.fixture
def chinese_encoder(tmp_path):
    """A tiny encoder that reads Chinese character by character."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(CHINESE.rglob("*.*")))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(set(text) - set(" \n"))])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    set_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "encoder")
    BertTokenizerFast(tokenizer_object=backend, model_max_length=64).save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def test_a_chinese_student(run, chinese_encoder):
    pytest.importorskip("rjieba", reason="pip install 'hf_distill[chinese]'")
    shown, left = run(
        "chinese_4x312",
        {"texts": "corpus.dataset['text'][:]", "scores": "scores"},
        teacher_name=chinese_encoder, task_folder=str(CHINESE / "reviews"),
        general_text=str(CHINESE / "sentences.txt"), student_shape="2x12:2h:20", num_steps=6, num_epochs=1,
    )  # fmt: skip
    texts = left["texts"]
    assert 20 < len(texts) <= 60
    assert AutoModel.from_pretrained("chinese-student", add_pooling_layer=False).config.hidden_size == 12
    assert set(left["scores"]) == {"distilled", "from scratch"}
    assert all(0 <= score <= 1 for score in left["scores"].values())
    assert "房 间 很 干 净" in shown
    assert "sentence: 房间很干净，住得很舒服。" in shown
    assert re.search(r"step +6: loss", shown)


# --- the Chinese text -----------------------------------------------------------------------------------------------


def test_the_chinese_task_is_balanced_and_no_sentence_occurs_twice():
    splits = {
        split: [json.loads(line) for line in (CHINESE / "reviews" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation")
    }
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 40, "validation": 20}
    for rows in splits.values():
        assert sum(row["label"] == "positive" for row in rows) * 2 == len(rows)
    texts = [row["text"] for rows in splits.values() for row in rows]
    texts += (CHINESE / "sentences.txt").read_text(encoding="utf-8").split()
    assert len(set(texts)) == len(texts) == 120
