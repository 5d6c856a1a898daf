"""What lies beside students and corpora."""

# What a training leaves beside the student, and why none of it is pushed.
LEFTOVERS = {
    "_objectives.safetensors": "underscore",
    "_distillation.json": "underscore",
    "_finished.json": "underscore",
    "_cache/rows.json": "underscore",
    ".git/config": "hidden",
    "checkpoint-2/model.safetensors": "checkpoint",
    "checkpoint-2/_objectives.safetensors": "underscore",
    "checkpoint-2/optimizer.pt": "checkpoint",
    "last-checkpoint/model.safetensors": "checkpoint",
    "optimizer.pt": "state of the training",
    "scheduler.pt": "state of the training",
    "scaler.pt": "state of the training",
    "rng_state.pth": "state of the training",
    "rng_state_1.pth": "state of the training",
    "trainer_state.json": "state of the training",
    "training_args.bin": "may hold a token",
    "arguments.yaml": "folders of this machine",
    "runs/today/events.out.tfevents.1": "a log",
    "pytorch_model.bin": "pickle",
    "baseline/config.json": "another model",
    "baseline/model.safetensors": "another model",
    "teacher/config.json": "another model",
    "teacher/model.safetensors": "another model",
    "notes.txt": "not part of a student",
    "data/model.safetensors": "not part of a student",
}


def touch(folder, paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"?")
