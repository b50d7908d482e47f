"""The commands. Each reads its arguments, calls services and prints the result."""
