"""What the commands do, without a word to the terminal: each service answers with records or raises."""
