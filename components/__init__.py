"""The parts of a stack, as Pulumi components, and what they are made from."""

import gc

# Importing Pulumi's AWS package makes a million objects, all of which stay. With Python's own threshold, searching them
# for garbage again and again takes a tenth of every preview.
gc.set_threshold(100_000)
