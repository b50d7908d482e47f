"""What the operator types: each command reads its arguments, calls services and prints what they answer."""
