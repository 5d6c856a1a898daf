"""`python -m hf_distill` is `hf-distill`."""

import sys

from .cli import main

sys.exit(main())
