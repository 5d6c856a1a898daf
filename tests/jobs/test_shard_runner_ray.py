"""A build by tasks of Ray on several nodes, of which one is lost."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.commands.corpus import run as build_corpus
from hf_distill.corpus.shards.runners import run_with_ray
from hf_distill.settings import CorpusArguments, ShardArguments, TaskArguments

pytest.importorskip("ray", reason="ray is not installed: pip install 'hf_distill[ray]'")


def fail(shard):
    raise ValueError("unlucky")


@pytest.fixture
def cluster():
    """A cluster of Ray on this machine: a head without work and two nodes of one core each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Losses are noticed within seconds, and the jobs of this file are imported by name.
        for name, value in (("initial_delay_ms", "500"), ("period_ms", "500"), ("failure_threshold", "10")):
            patch.setenv(f"RAY_health_check_{name}", value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.to_lose, _ = (cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2))
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def test_a_build_by_ray_that_loses_a_node_gives_the_corpus_of_one_index(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 300, 9)) for _ in range(3000)]
    (tmp_path / "task").mkdir()
    for split in ("train", "validation"):
        rows = {"sentence": [f"w{word} w{word + 1}" for word in range(40)], "label": [0, 1] * 20, "idx": range(40)}
        Dataset.from_dict(rows).to_parquet(str(tmp_path / "task" / f"{split}.parquet"))
    Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "general")
    task = TaskArguments("glue/sst2", data_dir=str(tmp_path / "task"))
    whole, sharded = (
        CorpusArguments(
            corpus=str(tmp_path / "general"),
            corpus_dir=str(tmp_path / name),
            engine="bm25s",
            top_k=20,
            language="none",
        )
        for name in ("whole", "sharded")
    )
    build_corpus(task, whole)

    def lose_a_node():
        """Without notice, as soon as a shard is in work."""
        until = time.monotonic() + 60
        while not list((tmp_path / "sharded").rglob(".partial-*/prepared-*")) and time.monotonic() < until:
            time.sleep(0.02)
        cluster.remove_node(cluster.to_lose, allow_graceful=False)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    results = build_corpus(task, sharded, ShardArguments(num_shards=3, runner="ray"))
    thread.join()
    assert results["rows"] > 300
    one, other = (Dataset.from_parquet(str(tmp_path / name / "data" / "*.parquet")) for name in ("whole", "sharded"))
    assert other.to_list() == one.to_list()
    # What a job raises arrives as it is, not in pages of Ray's.
    with pytest.raises(ValueError, match=r"^unlucky$"):
        run_with_ray(fail, [13], what="Trying")
