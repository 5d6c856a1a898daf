#!/usr/bin/env bash
# The contextualized corpus paper from the beginning to the end; every command goes on where it was stopped.
#   table 1   statistics.json and README.md of outputs/corpus_paper/cc and outputs/corpus_paper/taskda
#   table 3   outputs/corpus_paper/compared (Distinct-n; with words in common, figure 3)
#   table 2   grid.md of outputs/corpus_paper/table2
#   figure 2  report.html of every task in outputs/corpus_paper/figure2
# RoBERTa's 160 GB and WikiBook are both Wikipedia here, in passages of at most 100 words (table 1: 400 to 530 bytes a
# row). GLOVE is a file of GloVe's vectors, for words of several tokens; without it: the model's own embeddings.
set -euo pipefail
TASKS=${TASKS:-glue/mnli glue/sst2 glue/rte glue/mrpc glue/cola glue/stsb glue/qqp glue/qnli}
OUT=outputs/corpus_paper

hf-distill general --corpora wikimedia/wikipedia:20231101.en --unit passage --corpus_dir $OUT/general
for task in $TASKS; do
    # Section 3: length, epochs, warm-up, batch and rate are the task's own settings here.
    hf-distill teach --task "$task" --teacher_model FacebookAI/roberta-large --output_dir "$OUT/teachers/$task"
    # Table 1: the paper's k is the default for each task. One index serves all.
    for percent in 20 40 60 80 100; do
        hf-distill corpus --task "$task" --corpus $OUT/general --index_dir $OUT/indexes \
            --top_share "$(printf '%d.%02d' $((percent / 100)) $((percent % 100)))" \
            --corpus_dir "$OUT/cc/$task/$percent"
    done
    hf-distill augment --task "$task" --masked_lm google-bert/bert-base-uncased ${GLOVE:+--embeddings "$GLOVE"} \
        --corpus_dir "$OUT/taskda/$task"
    hf-distill compare --task "$task" \
        --corpora "taskda=$OUT/taskda/$task" "cc=$OUT/cc/$task/100" wikibook=$OUT/general \
        --output_dir "$OUT/compared/$task"
done
configs=$(dirname "$0")
hf-distill grid "$configs/contextualized_corpus_table2.yaml"
hf-distill grid "$configs/contextualized_corpus_figure2.yaml"
