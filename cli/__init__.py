"""`ftm`, the operator's hand on the pipeline: thin commands over services over rendering."""
