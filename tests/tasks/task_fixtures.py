"""Rows in a task's official columns, made from its spec, as files where its distribution has them."""

from itertools import cycle, islice

from tiny_data import write_rows

WORDS = "cat dog house tree river sea sun moon star day night city road bridge train boat bird fish book page".split()
ROWS = 4


def text(number, words=6):
    """A few known words, others in every row."""
    return " ".join(islice(cycle(WORDS), number, number + words))


def label_of(spec, number):
    """The label of a row as its name; the classes take turns, from the last to the first."""
    if spec.label_names is None:
        return 0.5 + number
    return spec.label_names[-1 - number % spec.num_labels]


def row_of(spec, number):
    """One row in the columns of the official files."""
    if spec.kind == "token_classification":
        words = text(number).split()
        return {
            spec.text_columns[0]: words,
            spec.label_column: [label_of(spec, number + i) for i in range(len(words))],
        }
    if spec.is_span:
        context = text(number, 30)
        answer = context.split()[2 + number]
        golds = {"text": [answer], "answer_start": [context.index(answer)]}
        if spec.may_have_no_answer and number % 2:
            golds = {"text": [], "answer_start": []}
        return {"id": str(number), "question": text(number, 3), "context": context, "answers": golds}
    row = {column: text(number + place) for place, column in enumerate((*spec.text_columns, *spec.choice_columns))}
    if len(spec.choice_columns) == 1:
        row[spec.choice_columns[0]] = [text(number + place) for place in range(spec.num_labels)]
    if spec.preprocessing == "join_keywords":
        row["keyword"] = text(number, 3).split()
    if spec.preprocessing == "mark_spans":
        first, second = row["text"].split()[:2]
        row["target"] = {
            "span1_text": second,
            "span1_index": row["text"].index(f" {second}") + 1,
            "span2_text": first,
            "span2_index": 0,
        }
    return row | {spec.label_column: label_of(spec, number)}


def write_task(spec, folder, rows=ROWS):
    """Every split of a task below `folder`: its own file, or files of what it is joined of.

    Returns:
        The folder to load the task from.
    """
    own = folder / spec.short_name
    for split in (spec.train_split, *spec.evaluation_splits):
        made = [row_of(spec, number) for number in range(rows)]
        for source in spec.split_sources.get(split, (split,)):
            data_set, _, place = source.rpartition(":")
            parent = folder / data_set.rpartition("/")[2] if data_set else own
            write_rows(parent / f"{place}.jsonl", made)
    return folder
