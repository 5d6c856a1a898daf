"""Tiny tokenizers, models and data, made here: no test needs a network or a file of this machine."""

import copy
import gc
import os
import warnings
from functools import partial

import hf_distill  # noqa: F401  before transformers, whose models import torchao: its lines are for debugging

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Models are tiny and processes run side by side: one thread each, here and in the processes that tests start. numba
# would set the number of OpenMP's threads, which are torch's too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import datasets
import pytest
import torch
from tokenizer_cases import WORDS, word_tokenizer
from trainings import sharpened
from transformers import BertConfig, BertForSequenceClassification, set_seed


def pytest_make_parametrize_id(val, argname):
    """A name for bytes: compressed ones hold the time, and every process has to name its tests alike."""
    return f"{argname} of {len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """Tests end processes, never the machine: what the system has taken need not be on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """See `word_tokenizer`."""
    return word_tokenizer()


@pytest.fixture(scope="session")
def tiny_bert_config(tiny_tokenizer):
    """`tiny_bert_config(**overrides)`: three layers, 24 wide, four heads, no dropout."""

    def make(**overrides):
        fields = {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "num_labels": 2,
        }
        return BertConfig(**{**fields, **overrides})

    return make


@pytest.fixture
def tiny_teacher(tiny_bert_config):
    """A classifier with sharp enough attention that its relations are worth learning."""
    set_seed(0)
    return sharpened(BertForSequenceClassification(tiny_bert_config(id2label={0: "negative", 1: "positive"})))


@pytest.fixture
def tiny_student(tiny_bert_config):
    """A smaller classifier for the same labels."""
    set_seed(1)
    config = tiny_bert_config(hidden_size=12, num_hidden_layers=2, id2label={0: "negative", 1: "positive"})
    return BertForSequenceClassification(config)


@pytest.fixture
def dropping_student(tiny_student):
    """The smaller classifier with dropout."""
    for module in tiny_student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return tiny_student


@pytest.fixture(scope="session")
def sentences():
    """Sixty-four sentences of three to fourteen known words."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(3, 15, (64,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (n,), generator=generator)) for n in lengths]


@pytest.fixture(scope="session")
def rows(sentences, tiny_tokenizer):
    """The sentences as rows of at most sixteen tokens, labels by turns."""
    encoded = tiny_tokenizer(sentences, truncation=True, max_length=16)
    return datasets.Dataset.from_dict({**encoded, "labels": [i % 2 for i in range(len(sentences))]})


@pytest.fixture(scope="module", autouse=True)
def light_collections():
    """Every training ends with a full garbage collection: what is loaded by now is no garbage and is not looked at."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def warnings_of(monkeypatch):
    """`warnings_of(*modules)`: the list that the modules' logged warnings go to."""

    def listen(*modules):
        said = []
        for module in modules:
            for kind in ("warning", "warning_once"):
                monkeypatch.setattr(module.logger, kind, said.append)
        return said

    return listen


@pytest.fixture
def one_thread():
    """PyTorch on one thread, afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_products():
    """The path of fp32 products, which a run sets for its process, is afterwards what it was."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.fixture
def fast_path(own_products):
    """oneDNN's path for fp32 products, whatever this processor makes of it."""
    from hf_distill.kernels.cpu import configure_fp32_matmul

    return configure_fp32_matmul("fast")


@pytest.fixture
def make_trainer(tmp_path, tiny_teacher, tiny_student, tiny_tokenizer):
    """`make_trainer(teacher, **arguments)`: a quiet trainer of a fresh copy of the tiny student, four steps long.

    `trainer` has further arguments of its class; a `MultiTeacherTrainer` takes a list of teachers. Without `copies`
    the student itself is trained.
    """
    from hf_distill import DistillationArguments, DistillationTrainer, MultiTeacherArguments, MultiTeacherTrainer

    def make(
        teacher=tiny_teacher, trainer_class=DistillationTrainer, *, student=tiny_student, train_dataset=None,
        tokenizer=tiny_tokenizer, trainer=None, copies=True, **arguments,
    ):  # fmt: skip
        several = trainer_class is MultiTeacherTrainer
        given = {
            "output_dir": str(tmp_path / "run"), "max_steps": 4, "per_device_train_batch_size": 8, "logging_steps": 1,
            "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "report_to": "none",
            "train_sampling_strategy": "sequential",
        }  # fmt: skip
        return trainer_class(
            copy.deepcopy(student) if copies else student,
            (MultiTeacherArguments if several else DistillationArguments)(**given | arguments),
            **{"train_dataset": train_dataset, "processing_class": tokenizer, **(trainer or {})},
            **{"teacher_models" if several else "teacher_model": teacher},
        )

    return make


@pytest.fixture
def build(make_trainer, rows):
    """`make_trainer` with `rows` to learn from."""
    return partial(make_trainer, train_dataset=rows)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the Hub to which this process talks as `anna`, with caches of its own."""
    import time
    from types import SimpleNamespace

    from hub_server import HubServer
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with HubServer() as server, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)  # how huggingface_hub sends LFS files
        # These are read from the environment when the package is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", "hf_anna")
        # Five retries take half a minute.
        monkeypatch.setattr(_http, "time", SimpleNamespace(**{**vars(time), "sleep": lambda _: None}))
        yield server


@pytest.fixture
def hub_data(hub, monkeypatch, tmp_path):
    """The stand-in for the Hub as `datasets` sees it too, with a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets_cache"))
    # Another host of the Hub, which knows types of columns: nobody answers there.
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    return hub
