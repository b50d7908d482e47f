"""Imports what the worker and its topic process need, in the process from which tests fork them."""

import gc

gc.disable()  # importing makes many objects and no garbage
import worker.batch  # noqa: E402, F401
from worker.firm import Firm, Sentence  # noqa: E402
from worker.topics.discovery import find_topics  # noqa: E402

texts = [f"Freight costs and inventory levels changed by {number} percent." for number in range(40)]
sentences = [Sentence(str(number), text, text, position=number) for number, text in enumerate(texts)]
find_topics(Firm("ACME", "Acme", None, None, None, sentences))  # fills its caches
gc.enable()
gc.freeze()  # a collection in a forked process would copy all memory that it looks through
