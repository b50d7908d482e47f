"""The Lambda functions of a run, one handler in each module, in the order in which the state machine calls them:
`prefetch_check`, `create_batch_manifest`, `summarize_results`, `notify_completion`. `results` reads what the workers
wrote, `storage` is the functions' access to S3, and `failures` puts the errors of states into words.
"""
