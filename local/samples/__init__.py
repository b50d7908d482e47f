"""Sample earnings calls that ftm writes itself, with known topics."""
