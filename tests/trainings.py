"""What tests look at before and after a training."""

import torch
from transformers import TrainerCallback


def sharpened(model):
    """A model whose attention is sharp enough that its relations are worth learning."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() == 2:
                parameter.mul_(4)
    return model.eval()


def trained(trainer, checkpoint=None):
    """A trainer after its training, which goes on from a checkpoint where one is named."""
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def logged(trainer, key="loss"):
    """Every value of a name in the log, in the order of the steps."""
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def batch_of(trainer, count=8):
    """The first rows as a batch on the trainer's device."""
    return trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(count)]))


def assert_same_weights(one, other, rtol=0.0, atol=0.0):
    """Every weight of one model is that of the other, by default bit for bit."""
    theirs = dict(other.named_parameters())
    for name, weight in one.named_parameters():
        torch.testing.assert_close(weight, theirs[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


class BreaksOff(TrainerCallback):
    """The user stops a training in a notebook, once."""

    is_over = False

    def on_step_end(self, args, state, control, **kwargs):
        """Raise after the first step."""
        if not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt
