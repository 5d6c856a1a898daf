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


def choices_row(spec, number):
    """Choices and the letter of the right one, as ARC, OpenbookQA and CommonsenseQA have them."""
    count = spec.num_labels - (number % 2 if spec.preprocessing == "five_choices" else 0)
    letters = spec.label_names[:count]
    choices = {"text": [text(number + place, 2) for place in range(count)], "label": list(letters)}
    return {spec.text_columns[0]: text(number), "choices": choices, spec.label_column: letters[-1 - number % count]}


def math_row(spec, number):
    """Options in one text."""
    options = " , ".join(f"{letter} ) {number}.{place}" for place, letter in enumerate("abcde"))
    return {"Problem": text(number), "options": options, "correct": label_of(spec, number)}


def sciq_row(spec, number):
    """The right answer and three others."""
    others = {f"distractor{place}": text(number + place, 1) for place in (1, 2, 3)}
    return {"question": text(number, 4), "support": text(number), "correct_answer": text(number, 1), **others}


def words_row(spec, number):
    """Words of WSC by their numbers."""
    words = text(number).split()
    spans = {"span1_index": 1, "span1_text": " ".join(words[1:3]), "span2_index": 4, "span2_text": words[4]}
    return {"text": " ".join(words), **spans, spec.label_column: label_of(spec, number)}


def answer_row(spec, number):
    """A paragraph, a question and one of its answers."""
    texts = {"paragraph": text(number, 12), "question": text(number, 3), "answer": text(number + 3, 2)}
    return texts | {spec.label_column: label_of(spec, number)}


SUBSETS = {
    "natural_questions": "NaturalQuestionsShort", "hotpotqa": "HotpotQA", "triviaqa": "TriviaQA-web", "": "SQuAD",
}  # fmt: skip


def mrqa_row(number, context, answer, name):
    """A question of one of the data sets in MRQA."""
    place = context.index(answer)
    spans = [{"start": [place], "end": [place + len(answer) - 1]}]
    return {
        "subset": SUBSETS[name], "qid": f"{name}{number}", "question": text(number, 3), "context": context,
        "answers": [answer], "detected_answers": {"text": [answer], "char_spans": spans},
    }  # fmt: skip


OFFICIAL = {
    "choice_texts": choices_row, "five_choices": choices_row, "lettered_options": math_row, "placed_answer": sciq_row,
    "mark_words": words_row, "join_answer": answer_row,
}  # fmt: skip


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
        if spec.preprocessing is not None:
            return mrqa_row(number, context, answer, spec.preprocessing.removeprefix("mrqa_"))
        golds = {"text": [answer], "answer_start": [context.index(answer)]}
        if spec.may_have_no_answer and number % 2:
            golds = {"text": [], "answer_start": []}
        return {"id": str(number), "question": text(number, 3), "context": context, "answers": golds}
    if spec.preprocessing in OFFICIAL:
        return OFFICIAL[spec.preprocessing](spec, number)
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
        if (spec.preprocessing or "").startswith("mrqa_"):
            made.insert(1, mrqa_row(0, "the sea and the sun", "sea", ""))
        for source in spec.split_sources.get(split, (split,)):
            data_set, _, place = source.rpartition(":")
            parent = folder / data_set.rpartition("/")[2] if data_set else own
            write_rows(parent / f"{place}.jsonl", made)
    return folder
