"""Speed and size of a student beside its teacher."""
