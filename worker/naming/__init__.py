"""Topic naming: the prompt, the validation of answers, and the namer that asks the LLM."""
