"""Files to work with: the topics of a run, its sentences, or the sentences of themes, as Parquet, CSV or JSON lines."""
