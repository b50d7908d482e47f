"""The Lambda functions of a run, one handler a file, in the order in which the state machine calls them:
`prefetch_check`, `create_batch_manifest`, `summarize_results`, `notify_completion`; `results` reads what workers wrote.
"""
