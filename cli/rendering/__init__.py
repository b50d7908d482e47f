"""Tables, progress and documents for the terminal."""
