"""What tests and benchmarks share: fakes and small servers."""
