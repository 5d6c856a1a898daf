"""A sharded build in this process, for the tests of shards: every pass over every shard, then the merge."""

from builder_cases import ANCHORS, GENERAL, SETTINGS

from hf_distill.corpus.build.anchors import collect_anchors
from hf_distill.corpus.shards.first_pass import Shards
from hf_distill.corpus.shards.merging import merge_shards
from hf_distill.corpus.shards.second_pass import ShardSearch
from hf_distill.settings import CorpusArguments

FOUND = collect_anchors(ANCHORS)


def shards_of(work_dir, num_shards, corpus=GENERAL, **settings):
    return Shards(CorpusArguments(**{**SETTINGS, **settings}), corpus, num_shards, work_dir=work_dir)


def search_of(work_dir, num_shards, anchors=FOUND, **settings):
    return ShardSearch(shards_of(work_dir, num_shards, **settings), anchors)


def prepare_all(work_dir, num_shards, **settings):
    shards = shards_of(work_dir, num_shards, **settings)
    for shard in range(num_shards):
        shards.prepare(shard)
    return shards


def search_all(work_dir, num_shards, anchors=FOUND, *, first_pass=True, **settings):
    if first_pass:
        prepare_all(work_dir, num_shards, **settings)
    search = search_of(work_dir, num_shards, anchors, **settings)
    for shard in range(num_shards):
        search.run(shard)
    return search


def build_sharded(work_dir, num_shards, anchors=FOUND, evaluation_texts=(), **settings):
    return merge_shards(search_all(work_dir, num_shards, anchors, **settings), evaluation_texts)
